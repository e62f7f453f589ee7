"""The file writer: a series' images in files as the detector's firmware leaves them.

Every file is written in a hidden folder beside its place and moved there when it is complete and
closed, so that nobody ever sees a growing file. Knows files and one series; knows nothing of the
detector's states, of threads or of HTTP; how files are built is in `file_layouts`.
"""

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

import h5py

from sim_dcu import hdf5_parts as parts
from sim_dcu.file_layouts import layout_of
from sim_dcu.image_stack import ImageStack
from sim_dcu.places import put_in_place
from sim_dcu.series import ArmedSeries

# Their links are made at arm, 20 us each.
MOST_DATA_FILES = 100_000
# Ten angles an image are written at arm: 400 MB for the longest series, several days at 30 Hz.
MOST_IMAGES = 10_000_000
# So the names of the hidden folders of unfinished files begin.
UNFINISHED = ".unfinished-"


class SeriesWriter:
    """The files of one series.

    `write_master` comes first, then `add` for each image in order, then `close`. One thread at a
    time may use it.

    Parameters
    ----------
    folder : pathlib.Path
        The data folder; it exists. Sub-folders of the name pattern are created in it.
    series : ArmedSeries
        The configuration the series was armed with.

    Raises
    ------
    KeyError
        Where the configuration lacks something the master file says.
    ValueError
        Where the name pattern leaves the folder or is hidden, the firmware has no such
        compression, or the series has more images or files than the format can number.
    """

    def __init__(self, folder: Path, series: ArmedSeries) -> None:
        self._folder = folder
        self._series = series
        self._per_file = int(series.filewriter["nimages_per_file"])
        self._first_number = int(series.filewriter["image_nr_start"])
        self._layout = layout_of(series)
        self._compression = self._layout.compression(series)
        self._layout.master.check_keys(series.detector)
        _check_name(series.basename)
        self._check_extent()
        self._hidden: Path | None = None
        self._open: _ImageFile | None = None
        self._written = 0
        self._closed = False

    @property
    def master_name(self) -> str:
        """The master file's name, relative to the data folder."""
        return f"{self._series.basename}_master.h5"

    def data_name(self, number: int) -> str:
        """Return the name of data file `number` (from 1), relative to the data folder."""
        return f"{self._series.basename}_data_{number:06d}.h5"

    @property
    def _data_files(self) -> int:
        """How many data files are promised; none where the images go into the master file."""
        return -(-self._series.images // self._per_file) if self._per_file else 0

    def write_master(self) -> None:
        """Write the master file, with a link to each promised data file, and publish it.

        With `nimages_per_file` 0 it holds the images itself and is published by `close`.
        """
        path = self._hidden_path(self.master_name)
        file = parts.create_file(path, self._layout.formats)
        try:
            groups = self._layout.master.write(file, self._series)
            if self._per_file == 0:
                stack = self._stack(groups["entry/data"], self._series.images)
                self._open = _ImageFile(file, path, self.master_name, self._first_number, stack)
                return
            links = groups["entry/data"].links
            images = self._layout.link_target.encode()
            for number in range(1, self._data_files + 1):
                # A bare name, so that the files can be moved together, as in real files.
                name = PurePosixPath(self.data_name(number)).name
                links.create_external(f"data_{number:06d}".encode(), name.encode(), images)
            parts.close_file(file)
            put_in_place(path, self._folder / self.master_name)
        except BaseException as error:
            self._give_up(file, error)
            raise

    def add(self, number: int, chunk: bytes) -> None:
        """Store image `number`; publish the data file that it fills.

        Parameters
        ----------
        number : int
            From 1; each call brings the next one.
        chunk : bytes
            The complete HDF5 chunk, encoded as the series says.

        Raises
        ------
        ValueError
            Where the number is not the next one or the series has no such image.
        RuntimeError
            After `close`, or after an error.
        OSError
            Where the image could not be written; the unfinished file is gone then.
        """
        if self._closed:
            raise RuntimeError(f"series {self._series.series_id}: its files are closed already")
        if number != self._written + 1 or number > self._series.images:
            raise ValueError(
                f"series {self._series.series_id}: image {number} came after image "
                f"{self._written} of {self._series.images}"
            )
        image_file = self._open or self._start_data_file()
        self._open = image_file
        try:
            image_file.stack.add(chunk)
        except BaseException as error:
            self._give_up(image_file.file, error)
            raise
        self._written = number
        if self._per_file and image_file.stack.full:
            self._finish_open_file()

    def close(self) -> None:
        """Publish the images that came and are in no published file yet; harmless when repeated."""
        if self._closed:
            return
        if self._open is not None:
            self._finish_open_file()
        self._closed = True
        self._remove_hidden()

    def discard(self) -> None:
        """Lose the images that are in no published file; harmless after `close`."""
        if self._closed:
            return
        self._closed = True
        if self._open is not None:
            parts.close_file(self._open.file)
            self._open = None
        self._remove_hidden()

    def _start_data_file(self) -> "_ImageFile":
        if self._per_file == 0:
            raise RuntimeError("the master file holds the images: write_master comes first")
        index = self._written // self._per_file
        before = index * self._per_file
        name = self.data_name(index + 1)
        path = self._hidden_path(name)
        file = parts.create_file(path, self._layout.formats)
        try:
            count = min(self._per_file, self._series.images - before)
            group = parts.create_data_file_groups(file, self._layout.class_sizes)
            stack = self._stack(group, count)
        except BaseException as error:
            self._give_up(file, error)
            raise
        return _ImageFile(file, path, name, self._first_number + before, stack)

    def _stack(self, group: h5py.h5g.GroupID, count: int) -> ImageStack:
        shape = (count, *self._series.shape)
        return ImageStack(group, shape, self._series.dtype, self._compression, self._layout)

    def _check_extent(self) -> None:
        images = self._series.images
        for found, most, what in (
            (images, MOST_IMAGES, "images"),
            (self._data_files, MOST_DATA_FILES, "data files"),
            (
                self._first_number + images - 1,
                self._layout.largest_number,
                "as the last image's number",
            ),
        ):
            if found > most:
                raise ValueError(f"the series has {found} {what}; at most {most} can be written")

    def _finish_open_file(self) -> None:
        image_file = self._open
        if image_file is None:
            return
        self._open = None
        try:
            image_file.finish()
            put_in_place(image_file.path, self._folder / image_file.name)
        except BaseException as error:
            self._give_up(image_file.file, error)
            raise

    def _hidden_path(self, name: str) -> Path:
        if self._hidden is None:
            # In the data folder, because a file moves at once only within its file system.
            self._hidden = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._folder))
        return self._hidden / PurePosixPath(name).name

    def _give_up(self, file: h5py.File, error: BaseException) -> None:
        """Remove an unfinished file after `error`, and take no more images."""
        self._closed = True
        self._open = None
        try:
            parts.close_file(file)
        except OSError as again:
            # The first error is the one to raise.
            error.add_note(str(again))
        self._remove_hidden()

    def _remove_hidden(self) -> None:
        if self._hidden is None:
            return
        for unfinished in self._hidden.iterdir():
            # A file that HDF5 could not close stays open in this process; emptied, it gives its
            # room back at once.
            os.truncate(unfinished, 0)
        shutil.rmtree(self._hidden)
        self._hidden = None


class _ImageFile:
    """A hidden file that takes images: a data file, or a master file that holds its images."""

    def __init__(
        self, file: h5py.File, path: Path, name: str, first: int, stack: ImageStack
    ) -> None:
        self.file = file
        self.path = path
        self.name = name
        self.stack = stack
        self._first = first

    def finish(self) -> None:
        """Cut the images to those that came, and close the file."""
        self.stack.finish(self._first)
        parts.close_file(self.file)
        self.stack.set_filter_version(self.path)


def _check_name(basename: str) -> None:
    path = PurePosixPath(basename)
    hidden = any(part.startswith(".") for part in path.parts)
    if path.is_absolute() or hidden or not path.name or "\0" in basename:
        raise ValueError(
            f"name_pattern makes {basename!r}: files lie in the data folder, under names that "
            "do not begin with a dot"
        )
