"""What a recovery did, rung by rung. Pure: no requests."""

from collections.abc import Sequence
from dataclasses import dataclass

from ophyd_eiger.settings import Report, table

# From the mildest to the last.
RUNGS = ("cancel", "abort", "disarm", "initialize", "restart")
DONE, FAILED, SKIPPED = "done", "failed", "skipped"


@dataclass(frozen=True)
class Rung:
    """One step of a recovery.

    Attributes
    ----------
    name : str
        As in "abort".
    outcome : {"done", "failed", "skipped"}
        Whether what it sends was taken; not whether it helped.
    said : str
        Why it failed or was skipped, or what else there is to say.
    state : str
        The detector's after it.
    seconds : float
        What it took, in s.
    """

    name: str
    outcome: str
    said: str
    state: str
    seconds: float

    def __str__(self) -> str:
        said = f" ({self.said})" if self.said else ""
        return f"{self.name}: {self.outcome}{said}, state {self.state!r}"


class RecoveryReport:
    """What a recovery did; prints as a table, and is true if the detector is back.

    Attributes
    ----------
    device : str
        Name of the device.
    rungs : tuple of Rung
        In order.
    now : str
        Which rung it is at.
    recovered : bool
        Whether the detector is idle and can be used.
    restored : Report or None
        Which settings were put back; None where none was lost.
    arrays : tuple of str
        Flat fields and masks that were put back, by the signals' names.
    lost : tuple of str
        What was not put back, by the signals' names.
    notes : tuple of str
        What else a person should know.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.rungs: tuple[Rung, ...] = ()
        self.now = "looking"
        self.recovered = False
        self.restored: Report | None = None
        self.arrays: tuple[str, ...] = ()
        self.lost: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()

    def add(self, rung: Rung) -> None:
        """Note what became of a rung."""
        self.rungs = (*self.rungs, rung)

    def note(self, sentence: str) -> None:
        """Note what a person should know."""
        self.notes = (*self.notes, sentence)

    def climbed(self, names: Sequence[str]) -> int:
        """Return how many of these rungs are behind."""
        return sum(rung.name in names for rung in self.rungs)

    def sent(self, *names: str) -> bool:
        """Return whether one of these was sent, whatever became of it."""
        return any(rung.name in names and rung.outcome != SKIPPED for rung in self.rungs)

    def summary(self) -> str:
        """Return what became of each rung, in one line."""
        return "; ".join(str(rung) for rung in self.rungs) or "nothing was sent"

    def __bool__(self) -> bool:
        return self.recovered

    def __repr__(self) -> str:
        end = "the detector is idle" if self.recovered else "the detector is not back"
        lines = [f"{self.device}: {end}"]
        if self.rungs:
            rows = [(r.name, r.outcome, r.state, f"{r.seconds:.1f}", r.said) for r in self.rungs]
            lines.append(table(("rung", "outcome", "state after", "took/s", ""), rows))
        else:
            lines.append("nothing was wrong, nothing was sent")
        if self.restored is not None:
            put = (*self.restored.put, *self.arrays)
            lines.append(f"put back as it was: {', '.join(put) or 'no setting was lost'}")
            if wrong := self.restored.not_as_asked:
                lines.append(f"not as they were: {', '.join(wrong)}")
        if self.lost:
            lines.append(f"lost, put them again: {', '.join(self.lost)}")
        return "\n".join([*lines, *self.notes])
