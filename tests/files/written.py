"""Series written to a folder by the file writer alone, with no detector around it."""

from pathlib import Path

from armed import armed_series

from sim_dcu import geometry
from sim_dcu.filewriter import SeriesWriter
from sim_dcu.images import ImageSource
from sim_dcu.series import ArmedSeries

GENERATIONS = {1: geometry.EIGER1, 2: geometry.EIGER2}


def armed(generation: int, modules: tuple[int, int] = (1, 1), **changes: object) -> ArmedSeries:
    """Return a series of an EIGER1 or an EIGER2, by default a 500K."""
    return armed_series(modules, generation=GENERATIONS[generation], **changes)


def write_series(folder: Path, series: ArmedSeries, images: int | None = None) -> Path:
    """Write a whole series, or its first `images` images, and return the master file's path."""
    writer, source = SeriesWriter(folder, series), ImageSource(series)
    writer.write_master()
    for number in range(1, (series.images if images is None else images) + 1):
        writer.add(number, source.chunk(number))
    writer.close()
    return folder / writer.master_name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def data_names(count: int, start: str = "series_7") -> list[str]:
    return [f"{start}_data_{number:06d}.h5" for number in range(1, count + 1)]
