"""Brings the files of series home while more data is taken: fetched, checked, then named.

Knows nothing of ophyd and nothing of the detector's states. One thread asks the DCU for its list
of files, fetches those that are due, writes each under a hidden name beside its place, checks it,
and gives it its name only then. Nothing that exists is overwritten; nothing is deleted on the DCU.
"""

import logging
import os
import tempfile
import threading
import time
from pathlib import Path

from ophyd_eiger.check import check_data_file, check_master_file
from ophyd_eiger.client import DcuClient
from ophyd_eiger.deliveries import Delivery, FetchedFile
from ophyd_eiger.errors import DcuError, EigerError, FileError, NotServedError, TransferError
from ophyd_eiger.master import HDF5_ERRORS
from ophyd_eiger.view import Part, give_name, write_view

logger = logging.getLogger(__name__)

# While a series runs, its files are asked for this often; after its end at once, then ever slower.
POLL_PERIOD_S = 1.0
WATCHED_PERIOD_S = 0.1
FIRST_POLL_S = 0.02
# A piece is read to its end before anything is known of it: small ones over a slow line, so that
# the bytes that come are seen to come, large ones over a fast line, where each costs time.
SMALLEST_PIECE, LARGEST_PIECE = 1 << 13, 1 << 20
FAST_PIECE_S, SLOW_PIECE_S = 0.05, 0.5


class Transfer:
    """One thread that brings deliveries home, as long as there are any.

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
        self._open: list[Delivery] = []
        self._state = threading.Condition()
        self._progress = 0
        self._ends = 0
        self._dcu_error: DcuError | None = None
        self._thread: threading.Thread | None = None
        self._wrong: list[str] = []
        self._newest = ""
        # Whether the DCU ever gave its list of files, or that there is none; None if neither yet.
        self._lists: bool | None = None
        self._told = False
        self._period = POLL_PERIOD_S

    def add(self, delivery: Delivery, *, seen_by_files: bool = False) -> None:
        """Take on a series whose first images are about to be exposed.

        Parameters
        ----------
        delivery : Delivery
            Its files.
        seen_by_files : bool
            Whether somebody waits for files to be published, so that the list is asked for often.
        """
        with self._state:
            if delivery.basename == self._newest:
                self._wrong.append(
                    f"{delivery.basename}: arm answered the sequence id of the series before, so "
                    "that the files of both have one name; take all points in one series: set "
                    "ntrigger to their number"
                )
            self._newest = delivery.basename
            if self._lists is False:
                # It may have one by now.
                self._lists = None
            self._open.append(delivery)
            self._period = WATCHED_PERIOD_S if seen_by_files else POLL_PERIOD_S
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._ends,), name=f"{self.name} files", daemon=True
                )
                self._thread.start()

    def end(self, delivery: Delivery, *, cut_short: bool, interrupted: bool = False) -> None:
        """Note that a series is over and that its files are on the DCU."""
        with self._state:
            delivery.cut_short = cut_short
            delivery.interrupted = interrupted
            delivery.ended = True
            self._ends += 1
            self._note_progress()

    def finalize(self, delivery: Delivery) -> None:
        """Note that no event will name images of a series any more: its views can be written."""
        with self._state:
            if not delivery.final:
                delivery.final = True
                self._note_progress()

    def wait_home(self, delivery: Delivery, patience: float) -> None:
        """Wait until every file of one series is home, whatever events will name of it.

        Parameters
        ----------
        delivery : Delivery
            Its files; it has ended.
        patience : float
            How long nothing may arrive, in s.

        Raises
        ------
        TransferError
            Naming what is missing and why; it is still awaited.
        """
        with self._state:
            while delivery in self._open and not delivery.is_home:
                if not self._wait_for_progress(patience):
                    raise self._missing([delivery], patience)

    def wait(self, patience: float) -> None:
        """Wait until every delivery is home, and its views are written.

        Parameters
        ----------
        patience : float
            How long nothing may arrive, in s.

        Raises
        ------
        TransferError
            Naming what is missing and why; the transfer is given up, the files stay on the DCU.
            Or if what came home is not what was taken.
        """
        with self._state:
            while self._open:
                if not self._wait_for_progress(patience):
                    self._report(self._give_up(), patience)
            wrong, self._wrong = self._wrong, []
        if wrong:
            raise TransferError(f"{self.name}: {'; '.join(wrong)}")

    def close(self) -> None:
        """Leave what is not home yet on the DCU, and let the thread end."""
        with self._state:
            self._give_up()

    def _give_up(self) -> list[Delivery]:
        given_up, self._open = self._open, []
        # The thread may hang in a download for as long as a request may take; it ends by itself,
        # and the next series gets one of its own.
        self._thread = None
        self._state.notify_all()
        return given_up

    def _wait_for_progress(self, patience: float) -> bool:
        before = self._progress
        # A DCU without the list of its files will have none in a while either.
        return (
            self._state.wait_for(
                lambda: self._progress != before or not self._open or self._lists is False, patience
            )
            and self._lists is not False
        )

    def _report(self, given_up: list[Delivery], patience: float) -> None:
        wanted = [delivery for delivery in given_up if delivery.needed()]
        for delivery in given_up:
            self._write_views(delivery)
            if delivery not in wanted:
                logger.warning(
                    "%s: what there is of %s was not fetched; no event needs it",
                    self.name,
                    delivery.basename,
                )
        wrong, self._wrong = self._wrong, []
        if wanted:
            missing = self._missing(wanted, patience)
            if not wrong:
                raise missing
            # What may be why they are missing.
            raise TransferError(f"{self.name}: {'; '.join(wrong)}; {missing}") from missing
        if wrong:
            raise TransferError(f"{self.name}: {'; '.join(wrong)}")

    def _missing(self, wanted: list[Delivery], patience: float) -> TransferError:
        missing = list(dict.fromkeys(name for d in wanted for name in d.needed()))
        if self._lists is False:
            error = TransferError(
                f"{self.name}: {_some(missing)} cannot be fetched, because this DCU has no list "
                f"of its files ({self._dcu_error}); the images were taken, and what is on the DCU "
                "is still there"
            )
            error.__cause__ = self._dcu_error
            return error
        reasons = [error for delivery in wanted for error in delivery.errors.values()]
        reason = reasons[-1] if reasons else self._dcu_error
        on_the_way = [
            f"{size} bytes of {name} had come"
            for delivery in wanted
            for name, size in delivery.reached.items()
            if name not in delivery.home
        ]
        said = reason or "; ".join(on_the_way) or "the DCU does not list them"
        error = TransferError(
            f"{self.name}: {_some(missing)} did not come home to {wanted[0].directory} within "
            f"{patience:g} s of the last byte ({said}); what is "
            "on the DCU is still there"
        )
        error.__cause__ = reason
        return error

    def _run(self, seen_ends: int) -> None:
        pause = self._period
        while True:
            with self._state:
                self._wait_for_news(seen_ends, pause)
                if self._thread is not threading.current_thread():
                    return
                if not self._open:
                    self._thread = None
                    return
                news = self._ends != seen_ends
                seen_ends = self._ends
                deliveries = list(self._open)
                before = self._progress
            due = [delivery for delivery in deliveries if not delivery.is_home]
            with self.client.ledger.background("transfer"):
                if due:
                    self._round(due)
                self._finish(deliveries)
            news = news or self._progress != before
            if not any(delivery.ended for delivery in due):
                pause = self._period
            else:
                pause = FIRST_POLL_S if news else min(2 * pause, self._period)

    def _wait_for_news(self, seen_ends: int, pause: float) -> None:
        self._state.wait_for(
            lambda: (
                self._ends != seen_ends
                or not self._open
                or any(delivery.is_home and delivery.final for delivery in self._open)
            ),
            pause,
        )

    def _round(self, deliveries: list[Delivery]) -> None:
        try:
            listed = set(self.client.files())
        except DcuError as error:
            self._dcu_error = error
            logger.debug("%s: %s", self.name, error)
            if isinstance(error, NotServedError) and self._lists is None:
                self._note_no_list(error)
            return
        self._dcu_error, self._lists, self._told = None, True, False
        for delivery in deliveries:
            delivery.listed = {name for name in listed if name.startswith(delivery.basename)}
            for name in delivery.due(listed):
                if delivery in self._open:
                    self._bring(delivery, name)
            with self._state:
                if delivery.is_complete(listed) and not delivery.is_home:
                    delivery.is_home = True
                    self._note_progress()

    def _note_no_list(self, error: NotServedError) -> None:
        with self._state:
            self._lists = False
            self._state.notify_all()
        level, self._told = logging.DEBUG if self._told else logging.WARNING, True
        logger.log(
            level,
            "%s: this DCU has no list of its files, so no image will come home: %s",
            self.name,
            error,
        )

    def _finish(self, deliveries: list[Delivery]) -> None:
        """Write the views of what is home and named, and be done with it."""
        for delivery in deliveries:
            if not (delivery.is_home and delivery.final):
                continue
            wrong = delivery.miscounted() or self._write_views(delivery)
            with self._state:
                if delivery in self._open:
                    self._open.remove(delivery)
                    if wrong:
                        self._wrong.append(wrong)
                    self._note_progress()

    def _write_views(self, delivery: Delivery) -> str:
        """Write what maps the images that events name; return what went wrong, or nothing."""
        try:
            for view in delivery.views:
                if view.firsts and view.path is None:
                    path = delivery.directory / view.file
                    write_view(
                        path,
                        ((first, view.images) for first in view.firsts),
                        [Part(path.with_name(n), *where) for n, *where in delivery.layout()],
                        shape=delivery.shape,
                        dtype=delivery.dtype,
                        master=delivery.master,
                    )
                    view.path = path
        except (EigerError, *HDF5_ERRORS) as error:
            return f"{delivery.basename}: no view file could be written ({error})"
        return ""

    def _note_progress(self) -> None:
        self._progress += 1
        self._state.notify_all()

    def _bring(self, delivery: Delivery, name: str) -> None:
        try:
            fetched = self._fetch(delivery, name)
        except (EigerError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # Those after OSError come from HDF5 for files that are not what they should be.
            # Tried again in the next round; `wait` decides when it has been long enough.
            if str(error) != str(delivery.errors.get(name)):
                logger.warning("%s: %s not fetched yet: %s", self.name, name, error)
            delivery.errors[name] = error
            return
        delivery.errors.pop(name, None)
        logger.info(
            "%s: %s home, %d bytes in %.3f s", self.name, name, fetched.bytes, fetched.seconds
        )
        with self._state:
            delivery.home[name] = fetched
            self._note_progress()

    def _fetch(self, delivery: Delivery, name: str) -> FetchedFile:
        began = time.perf_counter()
        final = delivery.directory / name
        aside = delivery.directory / f".{name}.part"
        try:
            size = self._download(delivery, name, aside)
            if name != delivery.master:
                images = check_data_file(aside, images=delivery.images_in(name))
            else:
                check_master_file(aside, images=None)
                inside = delivery.images_per_file == 0
                images = check_data_file(aside, images=delivery.images_in(name)) if inside else 0
            give_name(aside, final)
        finally:
            aside.unlink(missing_ok=True)
        return FetchedFile(final, size, images, time.perf_counter() - began)

    def _download(self, delivery: Delivery, name: str, aside: Path) -> int:
        written = 0
        buffer = memoryview(bytearray(LARGEST_PIECE))
        piece = SMALLEST_PIECE
        with (
            self.client.open_file(name) as (size, read_into),
            aside.open("wb", buffering=0) as file,
        ):
            while True:
                began = time.perf_counter()
                count = read_into(buffer[:piece])
                if not count:
                    break
                piece = _next_piece(piece, time.perf_counter() - began)
                file.write(buffer[:count])
                written += count
                if delivery not in self._open:
                    raise TransferError(f"{name}: given up after {written} bytes")
                # A file that fails again and again is no progress, however often it is fetched.
                if written > delivery.reached.get(name, 0):
                    delivery.reached[name] = written
                    with self._state:
                        self._note_progress()
            os.fsync(file.fileno())
        if size is not None and written != size:
            raise FileError(f"{aside}: {written} bytes came, {size} were announced")
        return written


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")


def _next_piece(piece: int, seconds: float) -> int:
    if seconds < FAST_PIECE_S:
        return min(2 * piece, LARGEST_PIECE)
    return max(piece // 2, SMALLEST_PIECE) if seconds > SLOW_PIECE_S else piece


def prepare_directory(directory: Path) -> None:
    """Make the folder, and see that files can be written to it.

    Raises
    ------
    TransferError
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise TransferError(
            f"{directory}: no files can be written there ({os.strerror(error.errno or 0)}); "
            "give another directory="
        ) from error
