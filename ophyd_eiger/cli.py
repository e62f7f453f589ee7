"""The command line `ophyd-eiger`."""

from pathlib import Path

try:
    import click
except ImportError as error:
    raise SystemExit(
        f"ophyd-eiger: {error}; the command line needs: pip install 'ophyd-eiger[all]'"
    ) from error

from ophyd_eiger.cli_recover import recover
from ophyd_eiger.errors import EigerError


@click.group()
@click.version_option(package_name="ophyd-eiger")
def main() -> None:
    """DECTRIS EIGER detectors in Bluesky, over the SIMPLON API."""


main.add_command(recover)


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
    help="Factor on every wait of the simulated detector; 1 is a real one.",
)
def demo(directory: Path, points: int, images: int, time_scale: float) -> None:
    """Scan with a simulated EIGER 1M, read the run back and compare every pixel."""
    click.echo("loading bluesky and matplotlib ...")
    try:
        from ophyd_eiger.demo import run_demo
    except ImportError as error:
        raise click.ClickException(
            f"{error}; the demo needs: pip install 'ophyd-eiger[all]'"
        ) from error
    try:
        all_equal = run_demo(directory, points=points, images=images, time_scale=time_scale)
    except EigerError as error:
        raise click.ClickException(str(error)) from error
    if not all_equal:
        raise SystemExit(1)
