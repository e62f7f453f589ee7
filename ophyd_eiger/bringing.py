"""What is done with each file of a series: brought, checked, named; and its views.

The steps alone, each in the caller's thread. Knows nothing of when they are due.
"""

import errno
import glob
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ophyd_eiger.check import check_data_file, check_master_file, check_pixels
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile, briefly, data_file_name
from ophyd_eiger.errors import (
    EigerError,
    FileError,
    MissingFileError,
    TransferError,
)
from ophyd_eiger.fetching import Download, Handling, aside_of, require_equal
from ophyd_eiger.images import images_of
from ophyd_eiger.last_work import in_hdf5
from ophyd_eiger.master import HDF5_ERRORS, open_hdf5, read_master
from ophyd_eiger.policy import FilePolicy
from ophyd_eiger.view import Part, write_view

logger = logging.getLogger(__name__)

# A series' id has 32 bits at most, as far as is known.
LARGEST_ID = 2**32 - 1
# What a file system says of names that are too long for it, or have characters that it refuses.
NAME_ERRORS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


class Bringer:
    """Brings files of one DCU.

    Parameters
    ----------
    client : DcuClient
        The way to the DCU.
    name : str
        Name of the detector, for messages.
    """

    def __init__(self, client: DcuClient, name: str) -> None:
        self.client = client
        self.name = name
        self._begun: dict[tuple[Delivery, str], Download] = {}

    def bring(
        self,
        delivery: Delivery,
        name: str,
        proceed: Callable[[int], None],
        settling: Callable[[bool], None],
    ) -> FetchedFile:
        """Bring one file home, or see that it is where the DCU's disk is mounted.

        Parameters
        ----------
        delivery : Delivery
            Its series.
        name : str
            Its name.
        proceed : callable
            Takes the bytes that are here; raises if it is not wanted any more.
        settling : callable
            Takes True when all bytes are here, and False when they are checked.

        Raises
        ------
        EigerError, OSError
            It can be tried again, and goes on where it broke off.
        """
        require_folder(delivery)
        mount = delivery.policy.mount
        if mount is not None:
            return self._link(delivery, name, mount / name)
        download = self._begun.setdefault(
            (delivery, name), Download(self.client, name, delivery.directory / name)
        )
        handling = Handling(
            lambda path: _check_copy(delivery, name, path),
            lambda path: _finish(delivery, path),
            proceed,
            settling,
        )
        if _may_be_the_only_one(delivery) and name == delivery.master:
            # Nothing in it tells whether a byte of its mask or of a value is another one.
            handling = replace(
                handling, prove=lambda path: self._compare(delivery, name, path, proceed)
            )
        fetched = download.fetch(handling)
        self._begun.pop((delivery, name), None)
        return fetched

    def share(self, delivery: Delivery, name: str) -> float:
        """Return which part of a file is here that is on its way, as far as its size is known."""
        download = self._begun.get((delivery, name))
        if download is None or not download.size:
            return 0.0
        return min(delivery.reached.get(name, 0) / download.size, 1.0)

    def discard(self, delivery: Delivery) -> None:
        """Remove what is here of files that are not whole."""
        for key in [key for key in tuple(self._begun) if key[0] is delivery]:
            if (download := self._begun.pop(key, None)) is not None:
                download.discard()

    @in_hdf5()
    def find_home(self, delivery: Delivery) -> None:
        """Note which files of a series are home already, whoever brought them."""
        pattern = f"{glob.escape(delivery.basename)}_*.h5"
        for path in sorted(delivery.directory.glob(pattern)):
            if path.name not in (*delivery.expected({path.name}), delivery.master):
                continue
            try:
                images = check_file(delivery, path.name, path)
                found = path.stat()
            except HDF5_ERRORS as error:
                logger.warning("%s: %s is here and is no file of it: %s", self.name, path, error)
                continue
            Download(self.client, path.name, path).remove_what_is_left()
            delivery.home[path.name] = FetchedFile(path, found.st_size, images, 0.0, found.st_mtime)
        for view in delivery.views:
            # The series' name has been given once, so that a view of it is its own.
            path = delivery.directory / view.file
            if not path.exists():
                continue
            view.path = path
            # One of more images was written by a process that knew of more events.
            view.is_whole = _images_shown(path) > len(view.firsts) * view.images

    @in_hdf5()
    def find_again(self, delivery: Delivery) -> None:
        """Note which files are back that went with their folder."""
        for name in tuple(delivery.gone):
            path = delivery.directory / name
            try:
                found = path.stat()
                images = check_file(delivery, name, path)
            except HDF5_ERRORS as error:
                logger.debug("%s: %s is not back: %s", self.name, path, error)
                continue
            delivery.gone.discard(name)
            delivery.home[name] = FetchedFile(
                path, found.st_size, images, 0.0, found.st_mtime, was_here=True
            )

    @in_hdf5()
    def write_views(self, delivery: Delivery) -> str:
        """Write what maps the images that events name; return what went wrong, or nothing.

        A view that was written when files were missing is replaced.
        """
        try:
            for view in delivery.views:
                if not view.firsts or view.is_whole:
                    continue
                require_folder(delivery)
                path = delivery.directory / view.file
                missing = write_view(
                    path,
                    ((first, view.images) for first in view.firsts),
                    [
                        Part(path.with_name(n), first, count)
                        for n, first, count in delivery.layout()
                    ],
                    shape=delivery.shape,
                    dtype=delivery.dtype,
                    master=delivery.master,
                    replace=view.path is not None,
                )
                view.path, view.is_whole = path, not missing
                delivery.policy.apply(path)
        except (EigerError, *HDF5_ERRORS) as error:
            return f"{delivery.basename}: no view file could be written ({error})"
        return ""

    @in_hdf5()
    def not_as_taken(self, delivery: Delivery) -> str:
        """Return what of a series that is home is not as this device took it, or nothing."""
        master = delivery.home.get(delivery.master)
        try:
            otherwise = delivery.armed_otherwise(read_master(master.path)) if master else ""
        except FileError as error:
            # It was whole when it came.
            return f"{delivery.basename}: {error}"
        return otherwise or delivery.miscounted()

    def _link(self, delivery: Delivery, name: str, there: Path) -> FetchedFile:
        """Let a file be seen in the folder of the scan that stays on the DCU's disk."""
        if not there.exists():
            raise MissingFileError(f"{there}: not there, though the DCU lists {name}")
        images = check_file(delivery, name, there)
        link = delivery.directory / name
        if not (link.is_symlink() and link.readlink() == there):
            link.symlink_to(there)
        return FetchedFile(link, there.stat().st_size, images, 0.0)

    def _compare(
        self, delivery: Delivery, name: str, path: Path, proceed: Callable[[int], None]
    ) -> None:
        size = delivery.sizes[name] = path.stat().st_size
        # What comes a second time is progress, too.
        require_equal(self.client, name, path, lambda compared: proceed(size + compared))


@in_hdf5()
def check_file(delivery: Delivery, name: str, path: Path) -> int:
    """Check a file of a series, wherever it is; return how many images it has.

    Raises
    ------
    FileError
        If it is not what it should be.
    """
    if name != delivery.master:
        return check_data_file(path, images=delivery.images_in(name))
    if delivery.images_per_file:
        check_master_file(path)
        return 0
    images = delivery.images_in(name)
    # Where a series cut short leaves open how many there are, there must be some all the same.
    return check_master_file(path, images=images) or check_data_file(path, images=images)


@in_hdf5()
def _check_copy(delivery: Delivery, name: str, path: Path) -> int:
    """Check a file that was fetched, and more closely where it will be the only one."""
    images = check_file(delivery, name, path)
    if _may_be_the_only_one(delivery) and images:
        check_pixels(path)
    return images


def _may_be_the_only_one(delivery: Delivery) -> bool:
    return delivery.policy.delete_on_dcu or delivery.is_proven


def _finish(delivery: Delivery, path: Path) -> None:
    """Make a file what it is to be, before it gets its name."""
    # Between its first byte and this the folder may have been renamed, and another one made.
    require_folder(delivery)
    delivery.policy.apply(path)


def _images_shown(view: Path) -> int:
    try:
        with open_hdf5(view) as file:
            return images_of(file, view).shape[0]
    except FileError:
        return 0


def disk_of(folder: Path) -> int | None:
    """Return which disk a folder is on, as the system numbers them; None if that is not known."""
    try:
        return folder.stat().st_dev
    except OSError:
        return None


def note_folder(delivery: Delivery) -> None:
    """Remember which folder it is that the files of a series go to, whatever it is called later."""
    delivery.disk = disk_of(delivery.directory)
    try:
        delivery.inode = delivery.directory.stat().st_ino
    except OSError:
        delivery.inode = None


def require_folder(delivery: Delivery) -> None:
    """See that the folder of a series is still the one that was noted.

    Raises
    ------
    TransferError
        If it is gone, or surely another one. The number of its disk alone says nothing: that of a
        network file system may be another one after each mount. Nor does its own number where the
        series' journal is in it: some file systems count anew what was not used for a while. The
        journal is renamed with its folder, so that who finds it there has the right one, too.
    """
    directory = delivery.directory
    back = (
        f"rename or mount it back to {directory} and fetch again; or, once this program has ended, "
        "`ophyd-eiger fetch --directory` with the folder's name now brings them, or `ophyd-eiger "
        "fetch` with the files' names if it was removed"
    )
    try:
        inode = directory.stat().st_ino
    except FileNotFoundError as error:
        raise TransferError(
            f"{directory}: the folder of {delivery.basename} is not there any more: {back}"
        ) from error
    if delivery.inode in (None, inode) or (directory / delivery.journal).exists():
        return
    raise TransferError(
        f"{directory}: this is another folder than when {delivery.basename} was taken, and nothing "
        f"of it is written there: {back}"
    )


def make_folder_again(delivery: Delivery) -> None:
    """Make the folder of a series again that was removed, if its disk is there.

    Where the disk is not mounted, a folder in its place would be hidden by it later. Unless it is
    sure that the folder is where it was, nothing is deleted on the DCU. What had come home and went
    with it is noted, to come again.
    """
    directory = delivery.directory
    there = next(each for each in (directory, *directory.parents) if os.path.exists(each))  # noqa: PTH110
    is_same_disk = delivery.disk is not None and disk_of(there) == delivery.disk
    if there == directory and is_same_disk:
        return
    if is_same_disk or there == directory:
        _note_gone(delivery)
    if delivery.policy.delete_on_dcu:
        delivery.policy, delivery.is_proven = replace(delivery.policy, delete_on_dcu=False), True
        logger.warning(
            "%s: the files stay on the DCU, too: %s is not the folder that it was",
            delivery.basename,
            directory,
        )
    if there == directory:
        return
    if not is_same_disk:
        logger.warning(
            "%s is not there, nor the disk that it was on: mount it, or make the folder", directory
        )
        # Which of both is done, it is the right one.
        delivery.inode = None
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        note_folder(delivery)
    except OSError as error:
        # What is then not written there tells it.
        logger.warning("%s cannot be made: %s", directory, error)


def _note_gone(delivery: Delivery) -> None:
    """Note which files that had come home went with the folder of their series.

    What was moved out of a folder that is still there was somebody's wish, and is no loss. What is
    on a disk that is not mounted now is found when it is.
    """
    home = tuple(delivery.home.items())
    gone = [name for name, file in home if not os.path.lexists(file.path)]
    if gone:
        delivery.note_gone(gone)
        logger.warning(
            "%s: %s had come home, and went with the folder %s, which was removed, renamed or "
            "unmounted; what the DCU still has of them is fetched again",
            delivery.basename,
            briefly(gone),
            delivery.directory,
        )


def prepare_directory(directory: Path, stem: str, policy: FilePolicy) -> None:
    """Make the folder, and see that files can be written to it as they are to be.

    Parameters
    ----------
    directory : Path
        The folder.
    stem : str
        What the files' names start with before the series' id.
    policy : FilePolicy
        What becomes of the files.

    Raises
    ------
    TransferError
    """
    # No other name that is given there is longer.
    probe = aside_of(directory / data_file_name(f"{stem}_{LARGEST_ID}", 1))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        try:
            # What it costs to find out only when the first file is here is a scan.
            policy.apply(probe)
        finally:
            probe.unlink()
    except OSError as error:
        another = "directory= or prefix=" if error.errno in NAME_ERRORS else "directory="
        raise TransferError(
            f"{directory}: no files can be written there as they should be "
            f"({os.strerror(error.errno or 0)}); give another {another}"
        ) from error
    mount = policy.mount
    if mount is not None and not mount.is_dir():
        raise TransferError(
            f"{mount}: the DCU's data folder is not mounted there; mount it, or let the files be "
            "fetched: FilePolicy() without mounted_at"
        )
