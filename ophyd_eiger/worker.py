"""The one thread that does a detector's work in order, and the Status of each piece of work.

Knows nothing of SIMPLON. The RunEngine calls devices inside its event loop, where a call that
waits would freeze pause, Ctrl-C and progress bars; so each verb hands a function to the worker and
returns an `EigerStatus` at once.
"""

import contextvars
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ophyd.status import StatusBase

from ophyd_eiger.progress import Progress

logger = logging.getLogger(__name__)

# How often somebody who watches a Status is told how far it is; bluesky draws no faster.
WATCH_PERIOD_S = 0.1


class EigerStatus(StatusBase):
    """A piece of work: what it is, whether it is done, and why it failed.

    Parameters
    ----------
    work : str
        What is being done, as in "eiger: trigger".
    timeout : float, optional
        After so many s the Status fails, whatever becomes of the work; never if not given.
    """

    def __init__(self, work: str, *, timeout: float | None = None) -> None:
        self.work = work
        self._observed = False
        self._on_observed: Callable[[], None] | None = None
        self._progress: Callable[[], Progress | None] | None = None
        self._watchers: list[Callable[..., Any]] = []
        self._over = threading.Event()
        self._began = time.monotonic()
        super().__init__(timeout=timeout)

    def __repr__(self) -> str:
        # bluesky's FailedStatus prints the repr of the Status: here it says the cause.
        if not self.done:
            progress = self.progress
            state = "under way" if progress is None else f"under way: {progress}"
        elif self.success:
            state = "done"
        else:
            error = self.exception(timeout=0)
            state = f"failed: {type(error).__name__}: {error}"
        return f"<{self.work}: {state}>"

    __str__ = __repr__

    @property
    def observed(self) -> bool:
        """Whether somebody waits, or waited, for this Status."""
        return self._observed

    @property
    def progress(self) -> Progress | None:
        """How far the work is, and what tells it; None where nobody can say."""
        return None if self._progress is None else self._progress()

    def follow(self, progress: Callable[[], Progress | None]) -> None:
        """Let `progress()` say from now on how far the work is; None where it cannot say."""
        self._progress = progress

    def watch(self, func: Callable[..., Any]) -> None:
        """Tell `func` how far the work is, again and again until it is done.

        Parameters
        ----------
        func : callable
            Called with the keyword arguments name, current, initial, target, unit, precision,
            fraction (what is to come), time_elapsed and time_remaining (in s), as bluesky's
            progress bars take them. The name says so where current is an estimate.
        """
        self._watchers.append(func)
        if len(self._watchers) > 1:
            return
        # Not `add_callback` of this class: who watches does not wait.
        super().add_callback(lambda _: self._over.set())
        threading.Thread(target=self._keep_telling, name=f"{self.work} watch", daemon=True).start()

    def _keep_telling(self) -> None:
        while not self._over.wait(WATCH_PERIOD_S):
            self._tell(self.progress)
        progress = self.progress
        if progress is not None and self.success:
            progress = Progress(progress.target, progress.target, progress.unit, "its end")
        self._tell(progress)

    def _tell(self, progress: Progress | None) -> None:
        if progress is None:
            return
        elapsed = time.monotonic() - self._began
        share = 1 - progress.remaining
        left = elapsed / share - elapsed if share > 0 else None
        for watcher in tuple(self._watchers):
            watcher(
                name=f"{self.work} (estimate)" if progress.is_estimate else self.work,
                current=progress.current,
                initial=0,
                target=progress.target,
                unit=progress.unit,
                precision=1 if progress.unit == "s" else 0,
                fraction=progress.remaining,
                time_elapsed=elapsed,
                time_remaining=left,
            )

    def on_observed(self, callback: Callable[[], None]) -> None:
        """Call back once when somebody first waits for this Status."""
        self._on_observed = callback
        if self._observed:
            self._note_observer()

    def add_callback(self, callback: Callable) -> None:
        """Call `callback(status)` when the work is done, at once if it is."""
        self._note_observer()
        super().add_callback(callback)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the work is done and raise what made it fail; `timeout` in s."""
        self._note_observer()
        super().wait(timeout)

    def _note_observer(self) -> None:
        self._observed = True
        callback, self._on_observed = self._on_observed, None
        if callback is not None:
            callback()


class Worker:
    """One thread that calls functions in the order they came, and ends with its owner.

    A failure that nobody waits for is logged at once and kept; `raise_unseen` raises it.

    Parameters
    ----------
    name : str
        Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # Of each thread its own.
        self._jobs: list[queue.SimpleQueue] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._unseen: list[tuple[EigerStatus, Exception]] = []
        self._doing: EigerStatus | None = None
        self._newest: EigerStatus | None = None
        self._finalizer = weakref.finalize(self, _end, self._jobs)
        self._finalizer.atexit = False

    def submit(self, function: Callable[[], Any], status: EigerStatus) -> EigerStatus:
        """Do `function` after all that was submitted before; its end is the Status' end."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # One whose start was cut short by Ctrl-C may come to life yet: it shall end.
                _end(self._jobs)
                self._jobs[:] = [queue.SimpleQueue()]
                self._thread = threading.Thread(
                    target=_work, args=tuple(self._jobs), name=self.name, daemon=True
                )
                self._thread.start()
            (jobs,) = self._jobs
        # The thread holds no reference to the worker while it waits, so that a detector that
        # nobody uses any more is collected and its thread ends.
        # In the caller's context, so that a request is known to belong to the work it is part of.
        context = contextvars.copy_context()
        self._newest = status
        jobs.put((self, lambda: context.run(function), status))
        return status

    def follow(self, progress: Callable[[], Progress | None]) -> None:
        """Let `progress()` say how far the piece of work is that the caller is part of."""
        if self.in_worker() and self._doing is not None:
            self._doing.follow(progress)

    @property
    def is_free(self) -> bool:
        """Whether all is done that was submitted, so that nothing has to be waited for."""
        return self._newest is None or self._newest.done

    def in_worker(self) -> bool:
        """Return whether the caller is this worker's own thread."""
        return threading.current_thread() is self._thread

    def raise_unseen(self) -> None:
        """Raise the oldest failure that nobody waited for, once.

        Raises
        ------
        EigerError
            Whatever the work failed with.
        """
        with self._lock:
            if not self._unseen:
                return
            _, error = self._unseen.pop(0)
        raise error

    def close(self, patience: float | None = None) -> None:
        """Let the thread end after the work that is queued; wait for that, for `patience` s."""
        with self._lock:
            thread, self._thread = self._thread, None
            _end(self._jobs)
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(patience)

    def finish(self, function: Callable[[], Any], status: EigerStatus) -> None:
        """Do `function` here and now, and end the Status with it."""
        self._doing = status
        try:
            function()
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the Status' to tell
            self.fail(status, error)
        else:
            status.set_finished()

    def fail(self, status: EigerStatus, error: Exception) -> None:
        """End the Status with an error, and see to it that somebody learns of it."""
        with self._lock:
            unseen = not status.observed
            # What one verb failed with may fail the next one too: told once is enough.
            self._unseen = [entry for entry in self._unseen if entry[1] is not error]
            if unseen:
                self._unseen.append((status, error))
        if unseen:
            # Without the lock: somebody may begin to wait just now, and then it is called here.
            status.on_observed(lambda: self._forget(status))
            logger.error("%s failed, and nobody waits for it: %s", status.work, error)
        status.set_exception(error)

    def _forget(self, status: EigerStatus) -> None:
        with self._lock:
            self._unseen = [entry for entry in self._unseen if entry[0] is not status]


def _end(jobs: list[queue.SimpleQueue]) -> None:
    """Let the threads end that work through these queues."""
    for queued in jobs:
        queued.put(None)


def _work(jobs: queue.SimpleQueue) -> None:
    while True:
        job = jobs.get()
        if job is None:
            return
        worker, function, status = job
        worker.finish(function, status)
        del job, worker, function, status
