"""`ophyd-eiger show`: draws a series into a PNG, without a display."""

from pathlib import Path
from typing import Any

import click

from ophyd_eiger.cli.arrays import load_array
from ophyd_eiger.cli.common import Call, Failed, Number, file_command
from ophyd_eiger.cli.geometry import geometry_option, unknown_geometry
from ophyd_eiger.cli.words import plural
from ophyd_eiger.errors import GeometryError, MissingFileError

_NO_RINGS, _RINGS_THAT_FIT = "none", "fitting"


@file_command("show")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--image", type=click.IntRange(1), metavar="N", help="Which image, from 1; else 1.")
@click.option(
    "--of",
    "what",
    type=click.Choice(["sum", "max", "sums", "overview"]),
    help="Sum or maximum of all images, the sum of each over time, or all of it.",
)
@click.option("--log", is_flag=True, help="Brightness is the logarithm of the counts.")
@click.option(
    "--top",
    type=Number(0, min_open=True),
    metavar="COUNTS",
    help="Counts at full brightness; else those that few points of the picture reach.",
)
@click.option(
    "--mask",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npy file, not 0 where pixels are left out besides the detector's mask.",
)
@click.option(
    "--rings",
    is_flag=False,
    flag_value=_RINGS_THAT_FIT,
    metavar="[D,D,...|none]",
    help="d-spacings of rings, in angstrom; --rings alone demands some that fit. Without it these "
    "are drawn where the beam centre is known.",
)
@geometry_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The PNG, a new file; else it has the name of FILE and is here.",
)
def command(
    call: Call,
    file: Path,
    image: int | None,
    what: str | None,
    log: bool,
    top: float | None,
    mask: Path | None,
    rings: str | None,
    geometry: tuple[tuple[str, float], ...],
    output: Path | None,
) -> None:
    """Draw FILE into a PNG: the master file of a series, a view, a data file, or a folder.

    Masked pixels are red, and count nowhere.
    """
    from ophyd_eiger.pictures import Look, show
    from ophyd_eiger.reader import open_series

    if image is not None and what is not None:
        raise click.UsageError("--image and --of are two pictures; give one of them")
    look = Look(
        log=log,
        top=top,
        mask=None if mask is None else load_array(mask),
        rings=_rings(rings),
        geometry=dict(geometry),
    )
    series = open_series(file)
    if rings not in (None, _NO_RINGS):
        _require_geometry(series.master_path, dict(geometry))
    stem = file.resolve().name if file.is_dir() else file.stem
    path = output or Path(f"{stem}_{what or image or 1}.png")
    if path.exists():
        raise Failed(f"{path}: exists already; give another name by --output", "FileError")
    with call.working(f"drawing {plural(len(series), 'image')}"):
        try:
            picture = show(series, what or (image or 1) - 1, look)
        except IndexError as error:
            has = f"it has images 1 to {len(series)}" if len(series) else "it has no images"
            asked = "" if what else f"image {image or 1} asked for, "
            raise Failed(f"{file}: {asked}{has}", "IndexError") from error
        picture.save(path)
    document: dict[str, Any] = {
        "file": str(file),
        "images": len(series),
        "shape": list(series.shape[1:]),
        "picture": str(path),
    }
    call.give(document, str(path))


def _require_geometry(master: Path, given: dict[str, float]) -> None:
    """See that rings can be drawn, where somebody asked for them."""
    from ophyd_eiger.geometry import read_geometry

    try:
        read_geometry(master, given)
    except (GeometryError, MissingFileError) as error:
        raise unknown_geometry(error, ", or leave rings out (--rings none)") from error


def _rings(given: str | None) -> bool | list[float]:
    if given is None or given == _RINGS_THAT_FIT:
        return True
    if given == _NO_RINGS:
        return False
    try:
        rings = [float(each) for each in given.split(",")]
    except ValueError:
        rings = []
    if not rings or min(rings) <= 0:
        raise click.BadParameter(
            f"{given!r} is no list of d-spacings in angstrom, nor none", param_hint="--rings"
        )
    return rings
