"""What each way to interrupt a scan does in each phase; docs/interruptions.md is made of it.

`python tests/device/interruption_rules.py > docs/interruptions.md` writes it, and the matrix holds
the device against it. Pure.
"""

from dataclasses import dataclass

POINTS = 2
EXPOSURE_S = 5.0
# From a command until the RunEngine obeys it, and until the DCU is idle, in s.
LONGEST_S = 10.0

# What is given first, and what at the prompt where that paused the scan.
COMMANDS = {
    "Ctrl-C": ("key", "resume"),
    "Ctrl-C twice, resume": ("keys", "resume"),
    "Ctrl-C twice, abort": ("keys", "abort"),
    "Ctrl-C twice, stop": ("keys", "stop"),
    "Ctrl-C twice, halt": ("keys", "halt"),
    "request_pause, resume": ("request_pause", "resume"),
    "abort": ("abort", ""),
    "stop": ("stop", ""),
    "halt": ("halt", ""),
    "suspender": ("suspend", ""),
}
MODES = {
    "step ints armed once": {"trigger_mode": "ints", "ntrigger": POINTS},
    "step ints a series a point": {"trigger_mode": "ints", "ntrigger": 1},
    "step inte": {"trigger_mode": "inte", "ntrigger": POINTS},
    "step exts": {"trigger_mode": "exts", "ntrigger": POINTS},
    "step exte": {"trigger_mode": "exte", "ntrigger": POINTS},
    "fly ints": {"trigger_mode": "ints"},
    "fly exts": {"trigger_mode": "exts"},
    "fly exte": {"trigger_mode": "exte"},
}
PHASES = ("arm", "first exposure", "between points", "later exposure", "disarm", "transfer")
# Events that are in the run when the phase begins; in a fly scan the last may come before its end.
BEFORE = {
    "arm": {0},
    "first exposure": {0},
    "between points": {1},
    "later exposure": {1},
    "disarm": {1},
    "transfer": {POINTS},
}
EXIT_STATUS = {"abort": "abort", "stop": "success", "halt": "abort"}


@dataclass(frozen=True)
class Expected:
    """What the run must be in the end.

    Attributes
    ----------
    paused : bool
        Whether the RunEngine comes back to the prompt paused.
    exit_status : str or None
        Of the stop document; None where no run was opened.
    events : set of int
        How many there may be.
    """

    paused: bool
    exit_status: str | None
    events: frozenset[int]

    def __str__(self) -> str:
        """Return it as the table has it."""
        if self.exit_status is None:
            return "no run"
        return f"{self.exit_status}, {' or '.join(map(str, sorted(self.events)))}"


def expected(command: str, *, flies: bool, phase: str) -> Expected:
    """Return what becomes of a scan of two points."""
    first, then = COMMANDS[command]
    before = BEFORE[phase] | ({POINTS} if flies and phase == "disarm" else set())
    paused = first in ("keys", "request_pause")
    if first == "key":
        # A fly scan has no checkpoint to pause at, nor has a step scan after its last point began.
        paused = not flies and phase in ("arm", "first exposure")
    end = first if first in EXIT_STATUS else then
    if end in EXIT_STATUS:
        if phase == "arm" and not flies:
            return Expected(paused, None, frozenset({0}))
        # The run is over when its last files are fetched.
        status = "success" if phase == "transfer" else EXIT_STATUS[end]
        return Expected(paused, status, frozenset(before))
    events = {POINTS}
    if flies and first != "key" and phase != "transfer":
        # It begins again, and what was collected before stays in the run.
        events = {POINTS + each for each in before}
    return Expected(paused, "success", frozenset(events))


IN_WORDS = (
    (
        "Ctrl-C once",
        "goes on; bluesky pauses at the next checkpoint, before the next point, and a scan that "
        "has none goes on to its end",
        "all come home",
        "all stay",
    ),
    (
        "Ctrl-C twice, or `RE.request_pause()`",
        "goes on while paused, until you resume or end the scan",
        "those of finished points come home",
        "all stay",
    ),
    (
        "then `RE.resume()`",
        "is ended, or was over meanwhile, and is taken again; a fly scan begins again from its "
        "start; what a step scan took since its last checkpoint (as before the delay of bp.count) "
        "is taken again too",
        "an image that was finished comes home too, and no event names it",
        "all points; those that a fly scan had collected, or a step scan since its checkpoint, "
        "stay beside those of the second try",
    ),
    (
        "a suspender",
        "goes on, and is taken again when the suspender is released, as with `RE.resume()`",
        "as above",
        "as above",
    ),
    (
        "`RE.abort()`, from a pause or from another thread",
        "is ended: by abort where its series has no finished point, else by cancel or disarm, "
        "which keep those",
        "of finished points, they are home when the RunEngine is idle",
        "those of finished points, of a fly scan those that were collected; exit status `abort`",
    ),
    ("`RE.stop()`", "the same", "the same", "the same; exit status `success`"),
    (
        "`RE.halt()`",
        "the same, but bluesky does not wait for it",
        "the same, a little later: `eiger.unstage().wait()` waits for them",
        "the same; exit status `abort`",
    ),
)
HEAD = f"""# What an interruption does

Whatever interrupts a scan, the RunEngine obeys at once, the detector is idle within {LONGEST_S:g} s
of the command that ends the scan, with exposures of {EXPOSURE_S:g} s, if the DCU answers,
every event has its image, and the next scan in the same process is right. A frozen DCU is sent
no command once a question (10 s, `Timeouts.get`) stayed without answer, and has a fifth of that for
each further one: the end takes some 20 s if the exposure began over a second before, else up to
`Timeouts.end` more, and the error names the request. When the DCU answers again the next scan ends
what was left.

| you do | the running exposure | the files | the events |
|---|---|---|---|
{chr(10).join(f"| {' | '.join(row)} |" for row in IN_WORDS)}

A pause or an end while the last files are fetched changes nothing of the run: it is over, and the
files come home. bluesky does not wait again for an `unstage` that a pause cut short;
`eiger.wait_for_files()` does.

Plans that put settings back (`dark`, `energy_scan`, `armed_once` and others) do so also where they
are aborted or stopped while they do it, and end then. After `RE.halt()` a plan can put nothing
back; a warning has what the settings were.

## What is left in the folder

An interrupted point may leave files that no event names:

* A master file alone, of some MB: its series was armed and ended without an image. `open_series`
  says that its data file is missing; there never was one.
* A master and data files without a view: an exposure that was over before it was taken again.

Both may be deleted, once `eiger.owed` and `ophyd-eiger fetch` do not name the series: then nothing
of it is still to come. A series with a finished point has its view beside it; keep all its files.

## Phase by phase

Exit status and number of events of a scan of {POINTS} points that is interrupted while the
detector arms, during its first exposure, between the points, in the middle of the later exposure,
while the detector is disarmed after it, and while the last file is fetched. So it is tested in the
step modes ints (armed once, and a series a point), inte, exts and exte and in fly scans in ints,
exts and exte, with exposures of {EXPOSURE_S:g} s, on the two generations by turns:
`pytest tests/device/test_interruption_matrix.py`.
"""


def as_markdown() -> str:
    """Return docs/interruptions.md."""
    lines = [HEAD]
    for flies, title in ((False, "Step scan"), (True, "Fly scan")):
        lines += [f"### {title}", "", "| | " + " | ".join(PHASES) + " |"]
        lines.append("|---" * (len(PHASES) + 1) + "|")
        for command in COMMANDS:
            row = [str(expected(command, flies=flies, phase=phase)) for phase in PHASES]
            lines.append(f"| {command} | " + " | ".join(row) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
