"""`ophyd-eiger abort`: ends whatever series is armed or runs."""

from typing import TYPE_CHECKING

import click

from ophyd_eiger.cli.common import FAILED, Call, dcu_command
from ophyd_eiger.cli.words import plural
from ophyd_eiger.errors import (
    DcuError,
    DcuTimeoutError,
    LostReplyError,
    NotServedError,
    RefusedError,
    StateError,
)
from ophyd_eiger.replies import number_of

if TYPE_CHECKING:
    from ophyd_eiger.cli.asking import Dcu


@dcu_command("abort")
@click.option(
    "--keep", is_flag=True, help="Let the image that is being exposed end, and keep what is taken."
)
def command(call: Call, keep: bool) -> None:
    """End whatever series is armed or runs, whoever started it.

    An exposure is ended at once and images that are not in a file yet may be lost, unless
    --keep is given. The detector is disarmed then: on an EIGER2 each of the two does only
    its own part.
    """
    dcu, before = call.reach("end")
    if before == "initialize":
        raise StateError("the detector is being initialized, which nothing ends; wait until it is")
    sent, state = [], before
    # Before API 1.6 one that is armed calls itself ready as one that is not.
    if dcu.is_busy(before) or before == "ready":
        with call.working(f"ending what runs on {dcu.url}"):
            sent, failure = _end(dcu, keep)
            state = dcu.wait_while(dcu.is_busy, dcu.client.timeouts.end)
            if failure is not None and dcu.is_busy(state):
                raise failure
            writer = _wait_for_files(dcu)
    else:
        writer = _writer_state(dcu)
    files = dcu.files()
    document = {
        "url": dcu.url,
        "state_before": before,
        "sent": sent,
        "state": state,
        "filewriter_state": writer,
        "files": files,
    }
    call.give(document, *([] if call.as_json else [_shown(before, state, sent, writer, files)]))
    if state == "error":
        call.say(f"it is in an error; ophyd-eiger recover {dcu.url} brings it back")
    if state == "na":
        call.say(f"it has to be initialized: ophyd-eiger initialize {dcu.url}")
    if dcu.is_busy(state):
        call.say(f"it did not end: ophyd-eiger initialize --force {dcu.url} does")
        raise click.exceptions.Exit(FAILED)


def _end(dcu: "Dcu", keep: bool) -> tuple[list[str], DcuError | None]:
    """Send each command once, whatever became of the one before; the state tells what helped.

    Returns
    -------
    sent : list of str
        What the detector took.
    failure : DcuError or None
        What went wrong last.
    """
    sent, failure = [], None
    for name in ("cancel" if keep else "abort", "disarm"):
        seconds = dcu.client.timeouts.end
        if name == "cancel":
            # It ends with the image that is being exposed.
            seconds += number_of(dcu.value("detector/config/frame_time")) or 0.0
        try:
            dcu.client.command("detector", name, timeout=seconds)
        except NotServedError:
            continue
        except (RefusedError, LostReplyError, DcuTimeoutError) as error:
            failure = error
        else:
            sent.append(name)
    return sent, failure


def _wait_for_files(dcu: "Dcu") -> str | None:
    dcu.wait_while(lambda _: _writer_state(dcu) == "acquire", dcu.client.timeouts.end)
    return _writer_state(dcu)


def _writer_state(dcu: "Dcu") -> str | None:
    state = dcu.value("filewriter/status/state")
    return None if state is None else str(state)


def _shown(before: str, state: str, sent: list[str], writer: str | None, files: int | None) -> str:
    told = f"nothing runs: {state}" if before == state else f"{before} -> {state}"
    parts = [f"{' and '.join(sent)} sent, {before} -> {state}" if sent else told]
    if writer is not None:
        parts.append(f"file writer {writer}")
    if files is not None:
        parts.append(f"{plural(files, 'file')} on the DCU")
    return "; ".join(parts)
