"""Work done in several threads of one pool, which every series of a process shares."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Task = TypeVar("Task")


class _InPool(threading.local):
    """Whether this thread is one of a pool."""

    is_so = False

    def set(self) -> None:
        """Say that it is."""
        self.is_so = True


class _Pools:
    """The pool of each number of threads; a forked process begins with none."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave the pools alone: after a fork their threads are not there."""
        self._lock = threading.Lock()
        self._made: dict[int, ThreadPoolExecutor] = {}

    def pool(self, threads: int) -> ThreadPoolExecutor:
        """Return the pool of so many threads."""
        with self._lock:
            if threads not in self._made:
                self._made[threads] = ThreadPoolExecutor(threads, "ophyd_eiger-read", _in_pool.set)
            return self._made[threads]


_in_pool, _pools = _InPool(), _Pools()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.forget)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def do_all(work: Callable[[Task], None], tasks: Sequence[Task], threads: int) -> None:
    """Do all tasks, several at a time.

    Where some fail, the error is that of the first of them in their order, and none is at work any
    more when it is raised.
    """
    # A thread of a pool that waited for others would do so for ever once all of them wait.
    if threads < 2 or len(tasks) < 2 or _in_pool.is_so:
        for task in tasks:
            work(task)
        return
    pool = _pools.pool(threads)
    futures = [pool.submit(work, task) for task in tasks]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
