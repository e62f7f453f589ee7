"""Files of a series that come short, damaged, late or not at all.

The file writer of such a series works in a hidden folder; from there its files are moved to their
place, after what was asked for is done to them. Knows files; nothing of the detector or of HTTP.
"""

import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from sim_dcu.faults import Faults, SetFault
from sim_dcu.places import put_in_place

# Where the data of a chunk's first block begins, of bslz4 as of lz4: after the image's size (8
# bytes), the block's (4) and its compressed length (4).
_FIRST_DATA = 16
# No literals, and then a match of 65535 bytes before the start of the output, which every LZ4
# decoder has to refuse (LZ4 block format, "offset").
_NO_LZ4 = b"\x0f\xff\xff"
# So the names of the hidden folders begin.
LATE, FAULTY = ".late-", ".faulty-"
_DATA_FILE = re.compile(r"_data_(\d{6})\.h5$")


class LateFiles:
    """Files that are held back for a while.

    Parameters
    ----------
    folder : Path
        Where they are kept, hidden.
    faults : Faults
        When a fault is cleared its files come at once.
    """

    def __init__(self, folder: Path, faults: Faults):
        self._folder = folder
        self._lock = threading.Lock()
        self._held: dict[Path, tuple[Path, SetFault, threading.Timer]] = {}
        faults.watch(self._release_cleared)

    def hold(self, path: Path, place: Path, fault: SetFault) -> None:
        """Take the file at `path`, and move it to `place` when the fault's seconds are over."""
        folder = Path(tempfile.mkdtemp(prefix=LATE, dir=self._folder))
        held = path.replace(folder / path.name)
        timer = threading.Timer(fault.arguments["seconds"], self._release, [held])
        timer.name, timer.daemon = "sim-dcu-late-file", True
        with self._lock:
            self._held[held] = (place, fault, timer)
        timer.start()
        if fault.cleared.is_set():
            self._release(held)

    def drop(self) -> None:
        """Delete what is held back."""
        with self._lock:
            dropped, self._held = self._held, {}
        for held, (_, _, timer) in dropped.items():
            timer.cancel()
            shutil.rmtree(held.parent)

    def _release(self, held: Path) -> None:
        with self._lock:
            if held not in self._held:
                return
            place, _, timer = self._held.pop(held)
            timer.cancel()
            if place.exists() and place.stat().st_mtime_ns > held.stat().st_mtime_ns:
                # A later series has written one of the same name.
                held.unlink()
            else:
                put_in_place(held, place)
            held.parent.rmdir()

    def _release_cleared(self) -> None:
        with self._lock:
            cleared = [held for held, (_, fault, _) in self._held.items() if fault.cleared.is_set()]
        for held in cleared:
            self._release(held)


class FaultyFiles:
    """The files of one series on their way to the folder they are served from.

    Parameters
    ----------
    folder : Path
        Where the files are to be.
    faults : sequence of SetFault
        What is to happen to them.
    late : LateFiles
        Holds files back.

    Attributes
    ----------
    folder : Path
        Where the file writer is to leave them.
    """

    def __init__(self, folder: Path, faults: Sequence[SetFault], late: LateFiles):
        self.folder = Path(tempfile.mkdtemp(prefix=FAULTY, dir=folder))
        self._target = folder
        self._faults = faults
        self._late = late

    def publish(self) -> None:
        """Move every file that the writer has finished to its place."""
        for path in sorted(self.folder.rglob("*.h5")):
            name = path.relative_to(self.folder)
            if not any(part.startswith(".") for part in name.parts):
                self._publish(path, self._target / name)

    def close(self) -> None:
        """Publish the last files, and leave nothing behind."""
        try:
            self.publish()
        finally:
            self.remove()

    def remove(self) -> None:
        """Delete what is not published."""
        shutil.rmtree(self.folder)

    def _publish(self, path: Path, place: Path) -> None:
        match = _DATA_FILE.search(path.name)
        number = int(match[1]) if match else 0
        late = None
        for fault in self._faults:
            if fault.arguments["file"] != number or fault.cleared.is_set():
                continue
            if fault.name == "file-missing":
                path.unlink()
                return
            if fault.name == "file-late":
                late = fault
            else:
                damage(path, fault)
        if late is not None:
            self._late.hold(path, place, late)
            return
        put_in_place(path, place)


def damage(path: Path, fault: SetFault) -> None:
    """Do to a finished file what a fault says, in place.

    Raises
    ------
    OSError
        Where the file that is to replace it cannot be read.
    """
    arguments = fault.arguments
    if fault.name == "file-replaced":
        shutil.copyfile(arguments["with"], path)
    elif fault.name == "file-truncated":
        with path.open("r+b") as file:
            file.truncate(max(0, path.stat().st_size - arguments["cut"]))
    elif fault.name == "file-short":
        _shorten(path, arguments["missing"])
    elif fault.name == "file-corrupt":
        _corrupt(path, arguments["image"], arguments["offset"], arguments["bytes"])


def _images(file: h5py.File) -> h5py.Dataset | None:
    """Return the dataset of a file's images, None in a master that only links them."""
    data = file["entry/data"]
    if not isinstance(data, h5py.Group):
        return None
    for name in data:
        # What lies elsewhere need not be there.
        if isinstance(data.get(name, getlink=True), h5py.HardLink):
            images = data[name]
            if isinstance(images, h5py.Dataset) and images.chunks and images.ndim == 3:
                return images
    return None


def _shorten(path: Path, missing: int) -> None:
    with h5py.File(path, "r+") as file:
        images = _images(file)
        if images is None:
            return
        left = max(0, images.shape[0] - missing)
        images.resize(left, axis=0)
        # Numbered as in a file that was closed early.
        low = int(np.asarray(images.attrs["image_nr_low"]).item())
        images.attrs.modify("image_nr_high", max(0, low + left - 1))


def _corrupt(path: Path, image: int, offset: int | None, count: int) -> None:
    """Damage the chunk of an image (from 1): `count` bytes from `offset`, or where it hurts."""
    with h5py.File(path, "r") as file:
        images = _images(file)
        if images is None or image > images.shape[0]:
            return
        chunk = images.id.get_chunk_info_by_coord((image - 1, 0, 0))
        start, size = chunk.byte_offset, chunk.size
    with path.open("r+b") as file:
        if offset is None:
            file.seek(start + _FIRST_DATA)
            file.write(_NO_LZ4)
            return
        begin = min(offset, size - 1)
        file.seek(start + begin)
        damaged = bytes(byte ^ 0xFF for byte in file.read(min(count, size - begin)))
        file.seek(start + begin)
        file.write(damaged)
