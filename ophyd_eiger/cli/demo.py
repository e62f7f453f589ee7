"""`ophyd-eiger demo`: a scan with the simulated detector, read back and compared."""

from pathlib import Path

import click

from ophyd_eiger.cli.common import Number
from ophyd_eiger.errors import EigerError


@click.command("demo")
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
    type=Number(0),
    default=0.2,
    show_default=True,
    help="Factor on every wait of the simulated detector; 1 is a real one.",
)
def command(directory: Path, points: int, images: int, time_scale: float) -> None:
    """Scan with a simulated EIGER 1M, read the run back and compare every pixel."""
    click.echo("loading bluesky and matplotlib ...")
    try:
        from bluesky.utils import FailedStatus

        from ophyd_eiger.demo import run_demo
    except ImportError as error:
        raise click.ClickException(
            f"{error}; the demo needs: pip install 'ophyd-eiger[all]'"
        ) from error
    try:
        all_equal = run_demo(directory, points=points, images=images, time_scale=time_scale)
    except EigerError as error:
        raise click.ClickException(str(error)) from error
    except FailedStatus as error:
        raise click.ClickException(str(error.__cause__ or error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    if not all_equal:
        raise SystemExit(1)
