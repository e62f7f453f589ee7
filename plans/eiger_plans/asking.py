"""What a plan asks or computes in a thread, so that the RunEngine is not held up by it."""

import asyncio
import functools
from collections.abc import Callable, Generator
from typing import Any

import bluesky.plan_stubs as bps


def called(function: Callable[..., Any], *arguments: Any) -> Generator[Any, Any, Any]:
    """Call a function in a thread and return what it returns; what it raises is raised.

    Parameters
    ----------
    function : callable
        It must not touch the RunEngine.
    *arguments
        What it is called with.

    Yields
    ------
    msg : Msg
        One message.

    Returns
    -------
    object
        None where the messages are listed and no RunEngine carries them out.
    """
    done = yield from bps.wait_for([functools.partial(asyncio.to_thread, function, *arguments)])
    return None if done is None else done[0].result()
