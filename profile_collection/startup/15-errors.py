"""Errors of an EIGER and its plans in a few lines; %tb shows where, %debug goes there.

What else fails has its traceback at once, as ever.
"""

import sys
import traceback

from bluesky.utils import FailedStatus

from ophyd_eiger import EigerError


def told_of(error):
    """Return the error of this package that an error is, or was caused by; None if neither."""
    while isinstance(error, FailedStatus):
        error = error.__cause__
    if isinstance(error, EigerError):
        return error
    return error if isinstance(error, ValueError) and raised_by_ours(error) else None


def raised_by_ours(error):
    """Return whether it is our plans or device that refused a value."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    return module.partition(".")[0] in {"eiger_plans", "ophyd_eiger"}


def show_error(shell, kind, error, trace, tb_offset=None):
    """Print an error's name and sentence, if it is of this package; else its traceback."""
    told = told_of(error)
    if told is None or shell.call_pdb:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return
    # What %tb and %debug look at.
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    sys.last_exc = error
    shell.InteractiveTB.tb = trace
    print(f"{type(told).__name__}: {told}\n(%tb shows where)", file=sys.stderr)


if hasattr(get_ipython(), "set_custom_exc"):
    get_ipython().set_custom_exc((EigerError, FailedStatus, ValueError), show_error)
