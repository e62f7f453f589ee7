"""Errors of an EIGER, and of plans that were called wrongly, in a few lines.

%tb shows where, %debug goes there.

What else fails has its traceback at once, as ever.
"""

import sys
import traceback

from bluesky.run_engine import TransitionError
from bluesky.utils import FailedStatus

from ophyd_eiger import EigerError

# Where bluesky refuses arguments; in the last of them what is no plan, as RE(count).
BLUESKYS = ("bluesky.plans", "bluesky.plan_stubs", "bluesky.plan_patterns", "bluesky.utils")
# Where cat[12] looks.
CATALOGS = ("bluesky_tiled_plugins.clients.catalog_of_bluesky_runs",)


def told_of(error):
    """Return the error that says it all: an EIGER's, or of what was typed; or None."""
    while isinstance(error, FailedStatus):
        error = error.__cause__
    if isinstance(error, EigerError):
        return error
    if isinstance(error, AttributeError):
        return of_a_name_in_quotes(error)
    if isinstance(error, LookupError):
        # Its own words, which Python puts in quotes.
        return LookupError(*error.args) if module_of(error) in CATALOGS else None
    if isinstance(error, RuntimeError):
        return of_a_pause(error)
    return error if isinstance(error, ValueError | TypeError) and is_refusal(error) else None


def of_a_name_in_quotes(error):
    """Return what says that a device's name was given to bluesky, and not the device; or None."""
    given = error.obj
    if isinstance(given, str) and module_of(error) in BLUESKYS:
        return TypeError(f"{given!r} is a string; a plan wants the object: {given}, without quotes")
    return None


def of_a_pause(error):
    """Return what to do where a plan is paused, or where none is; or None."""
    if module_of(error) != "bluesky.run_engine":
        return None
    if isinstance(error, TransitionError):
        return RuntimeError("no plan is paused, so that there is none to go on with, or to end")
    if "paused state" in str(error):
        return RuntimeError(
            "a plan is paused: RE.resume() goes on with it, RE.abort() or RE.stop() ends it"
        )
    return None


def is_refusal(error):
    """Return whether a plan or our device refused what it was given, and not something below."""
    module = module_of(error)
    ours = module.partition(".")[0] in {"eiger_plans", "ophyd_eiger"}
    # A TypeError in our own code is a mistake of ours, and wanted in full.
    return (ours and isinstance(error, ValueError)) or module in (*BLUESKYS, *CATALOGS)


def module_of(error):
    """Return the name of the module that an error is from."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "") if frames else ""


def show_error(shell, kind, error, trace, tb_offset=None):
    """Print an error's name and sentence, if they say it all; else its traceback."""
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
    get_ipython().set_custom_exc(
        (
            EigerError,
            FailedStatus,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            RuntimeError,
        ),
        show_error,
    )
