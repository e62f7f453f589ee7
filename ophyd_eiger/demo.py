"""The main job, end to end: a scan on a simulated EIGER 1M, read back and compared.

Speaks HTTP to a simulated DCU in a process of its own, as to a real one. Only the comparison uses
what no real DCU has: the simulator's word on what each image must hold.
"""

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import requests
from bluesky import RunEngine
from matplotlib import colormaps
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ophyd_eiger.detector import EigerDetector
from ophyd_eiger.master import MASTER_ENDING
from ophyd_eiger.reader import open_series
from ophyd_eiger.trial import simulator, temporary_catalog
from ophyd_eiger.writing import new_file

MODEL = "eiger-1m"
PHOTON_ENERGY_EV = 12_400.0
EXPOSURE_S = 0.5
REPLY_TIMEOUT_S = 60.0


@dataclass
class Ledger:
    """Seconds spent in each step, in order."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what is being done, and note how long it took."""
        began = time.perf_counter()
        with self.console.status(f"{name} ..."):
            yield
        self._note(name, began)

    @contextlib.contextmanager
    def counted(self, name: str, total: int) -> Iterator[Any]:
        """Show a progress bar; yields a function that advances it by one."""
        began = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            task = progress.add_task(name, total=total)
            yield lambda: progress.advance(task)
        self._note(name, began)

    def _note(self, name: str, began: float) -> None:
        self.seconds[name] = time.perf_counter() - began
        self.console.print(f"[green]✓[/] {name} [dim]{self.seconds[name]:.2f} s[/]")


def run_demo(directory: Path, *, points: int, images: int, time_scale: float) -> bool:
    """Run the main job and print what happened.

    Parameters
    ----------
    directory : Path
        Where data and picture go.
    points, images : int
        Points of the scan, images a point.
    time_scale : float
        How the simulated detector's waits compare with a real one's.

    Returns
    -------
    bool
        Whether every pixel of every image is what the simulator says it must be.
    """
    console = Console(highlight=False)
    ledger = Ledger(console)
    with contextlib.ExitStack() as stack:
        with ledger.step(f"start a simulated {MODEL.upper().replace('-', ' ')}"):
            url = stack.enter_context(simulator("--model", MODEL, "--time-scale", str(time_scale)))
        console.print(f"  [dim]{url}[/]")
        with ledger.step("load databroker"):
            catalog = temporary_catalog()
        eiger = EigerDetector(url, name="eiger", directory=directory / "data")
        stack.callback(eiger.destroy)
        uid = take_data(eiger, catalog, ledger, points=points, images=images)
        with ledger.step("read the run back through databroker"):
            dataset = catalog[uid].primary.read()
            stacks = np.asarray(dataset["eiger_image"])
            series_ids = [int(number) for number in np.asarray(dataset["eiger_series_id"])]
        differing = compare(url, stacks, series_ids, ledger)
        with ledger.step("draw"):
            picture = directory / f"demo_{uid[:8]}.png"
            draw(picture, stacks, last_mask(eiger))
        print_table(console, eiger, ledger, stacks)
    for what, where in (("run", uid), ("data", f"{directory / 'data'}/"), ("picture", picture)):
        console.print(f"{what:<7}  {where}", soft_wrap=True)
    total = points * images
    if differing == 0 and stacks.shape[:2] == (points, images):
        console.print(f"[bold green]all pixels equal[/] over {total} images")
        return True
    console.print(f"[bold red]{differing} of {total} images differ[/], shape {stacks.shape}")
    return False


def take_data(
    eiger: EigerDetector, catalog: Any, ledger: Ledger, *, points: int, images: int
) -> str:
    """Connect, initialize, set up and scan; return the run's uid."""
    with ledger.step("connect"):
        eiger.connect()
    with ledger.step("initialize"):
        eiger.initialize()
    with ledger.step("set energy and exposure"):
        eiger.detector.photon_energy.set(PHOTON_ENERGY_EV).wait()
        eiger.detector.count_time.set(EXPOSURE_S).wait()
        eiger.detector.frame_time.set(EXPOSURE_S + 0.001).wait()
        eiger.detector.nimages.set(images).wait()
    # Without bluesky's own answer to Ctrl-C, which pauses: here it ends the demo.
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(catalog.v1.insert)
    with ledger.counted(f"scan, {images} images a point", points) as advance:
        engine.subscribe(lambda name, doc: advance(), "event")
        uids: Any = engine(bp.count([eiger], num=points))
    return uids[0]


def compare(url: str, stacks: np.ndarray, series_ids: list[int], ledger: Ledger) -> int:
    """Compare images with what the simulator says they must hold; return how many differ."""
    differing = 0
    points, images = stacks.shape[:2]
    with ledger.counted("compare every pixel", points * images) as advance, requests.Session() as s:
        s.trust_env = False
        for stack, series_id in zip(stacks, series_ids, strict=True):
            for number, image in enumerate(stack, start=1):
                reply = s.get(f"{url}/sim/image/{series_id}/{number}", timeout=REPLY_TIMEOUT_S)
                reply.raise_for_status()
                expected = np.load(io.BytesIO(reply.content))
                same = image.dtype == expected.dtype and np.array_equal(image, expected)
                differing += not same
                advance()
    return differing


def last_mask(eiger: EigerDetector) -> np.ndarray:
    """Return the pixel mask, uint32 of shape (y, x), from the run's last master file."""
    masters = [file.path for file in eiger.fetched if file.path.name.endswith(MASTER_ENDING)]
    return open_series(masters[-1]).mask


def draw(path: Path, stacks: np.ndarray, mask: np.ndarray) -> None:
    """Draw the first image and the sum over the run, masked pixels in red, into a new PNG."""
    images = stacks.reshape(-1, *stacks.shape[-2:])
    masked = mask != 0
    total = images.sum(axis=0, dtype=np.uint64)
    figure = Figure(figsize=(9.4, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    colors = colormaps["viridis"].with_extremes(bad="#c8553d")
    panels = (("image 1", images[0]), (f"sum of {len(images)} images", total))
    for ax, (title, values) in zip(axes, panels, strict=True):
        shown = np.ma.array(values.astype(np.float64), mask=masked)
        top = max(float(np.percentile(shown.compressed(), 99.8)), 1.0)
        # Averaged over what falls into one pixel of the screen, so that no ring is lost there.
        picture = ax.imshow(
            shown,
            cmap=colors,
            norm=PowerNorm(0.5, 0, top),
            interpolation="auto",
            interpolation_stage="data",
        )
        ax.set(title=title, xlabel="x [pixel]", ylabel="y [pixel]")
        ticks = MaxNLocator(5, integer=True)
        figure.colorbar(picture, ax=ax, label="photons a pixel", extend="max", ticks=ticks)
    figure.suptitle(f"EIGER 1M, simulated; {masked.sum()} masked pixels in red")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(drawn) as true_color, new_file(path) as file:
        # 96 colours look the same and take a third of the bytes.
        few = true_color.convert("RGB").quantize(96, kmeans=3, dither=Image.Dither.NONE)
        few.save(file, format="png", optimize=True)


def print_table(console: Console, eiger: EigerDetector, ledger: Ledger, stacks: np.ndarray) -> None:
    """Print the run in figures."""
    table = Table(title="The run", show_header=False, title_justify="left")
    points, images, y, x = stacks.shape
    table.add_row("points", str(points))
    table.add_row("images", f"{points * images} of {y} x {x}, {stacks.dtype}")
    table.add_row("files", str(len(eiger.fetched)))
    table.add_row("bytes", f"{sum(file.bytes for file in eiger.fetched):,}")
    table.add_section()
    for name, seconds in ledger.seconds.items():
        table.add_row(name, f"{seconds:.2f} s")
    console.print(table)
