"""For how long nothing came of a series, by which it is known when to wait for it no longer.

Pure: counts seconds. Knows nothing of files.
"""

import time
from dataclasses import dataclass, field


@dataclass
class Silence:
    """The seconds in which nothing came of a series, without those in which nothing could.

    Attributes
    ----------
    since : float
        When it began, on the monotonic clock, later by as long as it was held.
    held : float or None
        Since when it is not counted; None while it is.
    broken : int
        How often something broke it.
    """

    since: float = field(default_factory=time.monotonic, compare=False)
    held: float | None = field(default=None, compare=False)
    broken: int = field(default=0, compare=False)

    @property
    def seconds(self) -> float:
        """How long it lasts, in s."""
        return (time.monotonic() if self.held is None else self.held) - self.since

    def break_off(self) -> None:
        """Count from now on: something came, or somebody begins to wait."""
        self.broken += 1
        self.since = time.monotonic()
        if self.held is not None:
            self.held = self.since

    def hold(self, held: bool) -> None:
        """Count no longer, or go on."""
        now = time.monotonic()
        if held and self.held is None:
            self.held = now
        elif not held and self.held is not None:
            self.since += now - self.held
            self.held = None
