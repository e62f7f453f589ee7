"""`ophyd-eiger reprocess`: works on runs of a catalog again."""

import contextlib
import datetime as dt
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ophyd_eiger.cli.arrays import load_array
from ophyd_eiger.cli.catalogs import opened
from ophyd_eiger.cli.common import Call, Failed, file_command
from ophyd_eiger.cli.geometry import geometry_option, unknown_geometry
from ophyd_eiger.cli.words import plural
from ophyd_eiger.errors import GeometryError
from ophyd_eiger.finding import find_run
from ophyd_eiger.writing import new_file

if TYPE_CHECKING:
    from ophyd_eiger.reprocess import Recipe, Reduced
    from ophyd_eiger.runs import EigerRun

UNITS = ("q_A^-1", "2th_deg", "r_mm")


class Region(click.ParamType):
    """A region of interest: NAME=X,Y,WIDTH,HEIGHT in pixels."""

    name = "name=x,y,width,height"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, list[int]]:
        """Return its name and its four numbers."""
        name, _, numbers = str(value).partition("=")
        try:
            box = [int(number) for number in numbers.split(",")]
        except ValueError:
            box = []
        if not name or len(box) != 4:
            self.fail(f"{value!r} is no region; give NAME=X,Y,WIDTH,HEIGHT in pixels", param, ctx)
        return name, box


class Pair(click.ParamType):
    """Two texts with = between them."""

    name = "key=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        """Return both."""
        key, sign, text = str(value).partition("=")
        if not key or not sign:
            self.fail(f"{value!r} is no pair; give KEY=VALUE", param, ctx)
        return key, text


@file_command("reprocess")
@click.argument("catalog")
@click.argument("wanted", nargs=-1, metavar="[RUN]...")
@click.option("--plan", metavar="NAME", help="Only runs of this plan.")
@click.option("--since", type=click.DateTime(), help="Only runs that began then or later.")
@click.option("--until", type=click.DateTime(), help="Only runs that began before.")
@click.option(
    "--where", type=Pair(), multiple=True, help="Only runs whose start document has this text."
)
@click.option("--key", help="The images' data key, where runs have several detectors.")
@click.option(
    "--root", type=Pair(), multiple=True, help="Where a folder of the documents is: THERE=HERE."
)
@click.option(
    "--mask",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npy file, not 0 where pixels are left out besides the detector's mask.",
)
@click.option(
    "--flatfield", metavar="FILE|detector", help="A .npy file of factors, or the detector's own."
)
@click.option("--roi", "rois", type=Region(), multiple=True, help="A region to be summed.")
@click.option(
    "--profile",
    "bins",
    type=click.IntRange(1),
    metavar="BINS",
    help="Radial profiles of so many bins.",
)
@click.option(
    "--unit",
    type=click.Choice(UNITS),
    default=UNITS[0],
    show_default=True,
    help="Of the profiles' axis.",
)
@geometry_option
@click.option("--save", is_flag=True, help="Save what becomes of each run as a new run.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where sum and maximum of all images go, and with --npz all numbers.",
)
@click.option("--npz", is_flag=True, help="Write a .npz file a run into --directory.")
def command(call: Call, catalog: str, wanted: tuple[str, ...], **options: Any) -> None:
    """Work on runs of CATALOG again: mask, flat field, sums, regions, radial profiles.

    CATALOG is a folder with a catalog, as data/catalog of `make shell`, which is served as long as
    the command lasts, beside a prompt or not; or the URL of a tiled server, with its key in it
    (http://HOST:8000?api_key=KEY) or in the variable TILED_API_KEY; or the name of a tiled profile.
    Without RUNs it works on the runs that the options find, of those on each that has images; of
    what it passes over it says why. A RUN is its number, its uid, or how that begins. What is told
    of a run are the sums over all its images; --npz and --save keep the numbers of each.
    """
    if options["npz"] and options["directory"] is None:
        raise click.UsageError("--npz needs --directory")
    if not (options["npz"] or options["save"]):
        for option, name in (("--directory", "directory"), ("--profile", "bins")):
            if options[name] is not None:
                raise click.UsageError(f"{option}: nothing would be in it; add --npz or --save")
    recipe = _recipe(options)
    with opened(catalog) as client:
        runs: Any = [find_run(client, each) for each in wanted] or _searched(client, options)
        # A run that was asked for alone is not passed over.
        found = _found(runs[0] if len(wanted) == 1 else runs, recipe, options, call)
        if not found:
            near = _near(client, options["plan"])
            raise Failed(f"no run was found whose images can be worked on{near}")
        done = _worked(found, recipe, client, options, call)
    call.give({"runs": done}, "\n".join(map(_shown, done)))


def _recipe(options: dict[str, Any]) -> "Recipe":
    from ophyd_eiger.reprocess import Recipe

    flatfield: Any = options["flatfield"]
    if flatfield is not None:
        flatfield = True if flatfield == "detector" else load_array(Path(flatfield))
    mask = options["mask"]
    return Recipe(
        mask=None if mask is None else load_array(mask),
        flatfield=flatfield,
        rois=dict(options["rois"]),
        bins=options["bins"] or 0,
        unit=options["unit"],
        geometry=dict(options["geometry"]),
    )


def _searched(client: Any, options: dict[str, Any]) -> Any:
    from tiled.queries import Comparison, Eq

    found = client
    wanted = dict(options["where"]) | ({"plan_name": options["plan"]} if options["plan"] else {})
    for key, value in wanted.items():
        found = found.search(Eq(f"start.{key}", value))
    for option, relation in (("since", "ge"), ("until", "lt")):
        when: dt.datetime | None = options[option]
        if when is not None:
            # A time without a zone is that of the machine.
            found = found.search(Comparison(relation, "start.time", when.astimezone().timestamp()))
    return found


def _near(client: Any, plan: str | None) -> str:
    """Return a hint, where a plan was asked for of which the catalog has no run."""
    if plan is None:
        return ""
    found = client.distinct("start.plan_name")["metadata"]["start.plan_name"]
    plans = sorted(str(each["value"]) for each in found)
    return "" if plan in plans else f": of plan {plan!r} there is none, but of {', '.join(plans)}"


def _found(runs: Any, recipe: "Recipe", options: dict[str, Any], call: Call) -> "list[EigerRun]":
    from ophyd_eiger import reprocess

    try:
        return reprocess.opened(
            runs,
            recipe,
            passed_over=lambda reason: call.say(f"passed over: {reason}"),
            key=options["key"],
            root_map=dict(options["root"]),
        )
    except GeometryError as error:
        raise unknown_geometry(error) from error


def _worked(
    runs: "list[EigerRun]", recipe: "Recipe", client: Any, options: dict[str, Any], call: Call
) -> list[dict[str, Any]]:
    from ophyd_eiger.processed_runs import write_run
    from ophyd_eiger.reprocess import reduce_run

    done = []
    total = sum(run.shape[0] * run.shape[1] for run in runs)
    with _bar(total, call) as advance:
        for run in runs:
            reduced = reduce_run(run, recipe, progress=advance)
            said: dict[str, Any] = {
                "uid": run.uid,
                "scan_id": run.scan_id,
                "events": run.shape[0],
                "images": run.shape[0] * run.shape[1],
                "sum": int(_sum(reduced.numbers["image_sum"]) or 0),
                "regions": {name: _sum(reduced.numbers[f"{name}_sum"]) for name in recipe.rois},
                "new_uid": None,
                "file": None,
            }
            if options["save"]:
                said["new_uid"] = write_run(reduced, client, options["directory"])
            if options["npz"]:
                said["file"] = str(_written(reduced, options["directory"]))
            done.append(said)
    return done


def _sum(of_images: Any) -> float | None:
    """Return the sum over all images; None of a region without a good pixel in any of them."""
    known = [value for value in of_images.flat if not math.isnan(value)]
    return float(sum(known)) if known else None


@contextlib.contextmanager
def _bar(total: int, call: Call) -> Iterator[Callable[[], None]]:
    """Show how many images are done, and the time left, at a terminal."""
    if not call.err.is_terminal:
        yield lambda: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=call.err, transient=True) as progress:
        task = progress.add_task("images", total=total)
        yield lambda: progress.advance(task)


def _written(reduced: "Reduced", directory: Path) -> Path:
    import numpy as np

    path = directory / f"{reduced.run.uid[:8]}_reprocessed.npz"
    arrays: dict[str, Any] = {**reduced.numbers, **reduced.pictures, "mask": reduced.mask}
    if reduced.axis is not None:
        arrays["profile_axis"] = reduced.axis
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise Failed(f"{path}: not written ({error.strerror})", type(error).__name__) from error
    return path


def _shown(said: dict[str, Any]) -> str:
    number = "" if said["scan_id"] is None else f"run {said['scan_id']}  "
    line = f"{number}{said['uid']}  {plural(said['images'], 'image')}, sum {said['sum']}"
    for name, total in said["regions"].items():
        line += f", {name} {'no good pixel' if total is None else f'{total:.0f}'}"
    for what in ("new_uid", "file"):
        if said[what]:
            line += f" -> {said[what]}"
    return line
