"""The command line `ophyd-eiger`."""

from pathlib import Path

try:
    import click
except ImportError as error:
    raise SystemExit(
        f"ophyd-eiger: {error}; the command line needs: pip install 'ophyd-eiger[all]'"
    ) from error


@click.group()
@click.version_option(package_name="ophyd-eiger")
def main() -> None:
    """DECTRIS EIGER detectors in Bluesky, over the SIMPLON API."""


@main.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Where data and picture go; nothing in it is overwritten.",
)
@click.option("--points", type=click.IntRange(1), default=5, show_default=True, help="Points.")
@click.option(
    "--images", type=click.IntRange(1), default=10, show_default=True, help="Images a point."
)
@click.option(
    "--time-scale",
    type=click.FloatRange(0),
    default=0.2,
    show_default=True,
    help="How the simulated detector's waits compare with a real one's.",
)
def demo(directory: Path, points: int, images: int, time_scale: float) -> None:
    """Scan with a simulated EIGER 1M, read the run back and compare every pixel."""
    try:
        from ophyd_eiger.demo import run_demo
    except ImportError as error:
        raise click.ClickException(
            f"{error}; the demo needs: pip install 'ophyd-eiger[all]'"
        ) from error
    if not run_demo(directory, points=points, images=images, time_scale=time_scale):
        raise SystemExit(1)
