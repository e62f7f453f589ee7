"""What a plan asks of a source of triggers that watches a motor, as a Zebra or a PandA does."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class PulseTrain:
    """Pulses for the detector's trigger input, by where a motor is.

    Attributes
    ----------
    motor : str
        Name of the motor.
    first : float
        Where it is at the first pulse, in its unit.
    step : float
        How far it goes from one pulse to the next; below 0 where it moves backwards.
    pulses : int
        How many pulses.
    """

    motor: str
    first: float
    step: float
    pulses: int


class TriggerSource(Protocol):
    """What gives pulses while a motor moves, in bluesky's own verbs.

    A plan calls `prepare` before the motor sets out, `kickoff` before it comes to the first pulse
    and `complete` when it is past the last; `stop(success=...)`, if there is one, when the plan
    fails or is aborted. Each returns a Status, which `stop` need not.
    """

    name: str

    def prepare(self, value: PulseTrain) -> Any:
        """Return a Status that is done when these pulses can be given."""
        ...

    def kickoff(self) -> Any:
        """Return a Status that is done when the motor is watched."""
        ...

    def complete(self) -> Any:
        """Return a Status that is done when the last pulse was given."""
        ...
