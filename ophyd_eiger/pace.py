"""How long a DCU's series take beside what they should: what came too early was ended.

A detector keeps time; a simulated one may take no time at all, and is known by what it did before.
"""

# A series of at least so many s whose trigger replied before this part of its time was ended by
# somebody else, or by a DCU that failed.
SHORTEST_SUSPECT_S = 1.0
PLAUSIBLE_PART = 0.8
# Of a simulated detector that takes no time a series takes less than this part of it.
REAL_PART = 0.05


class Pace:
    """The pace of one DCU.

    Attributes
    ----------
    part : float or None
        The least part of its time that a series took of which all images were there; None as long
        as none is known.
    """

    def __init__(self) -> None:
        self.part: float | None = None

    def is_early(self, seconds: float, passed: float) -> bool:
        """Return whether an exposure of so many s was over sooner than can be."""
        part = 1.0 if self.part is None else self.part
        return seconds >= SHORTEST_SUSPECT_S and passed < PLAUSIBLE_PART * part * seconds

    def is_sure(self, seconds: float) -> bool:
        """Return whether what is early was ended, because such exposures take long here."""
        return self.part is not None and self.part * seconds >= SHORTEST_SUSPECT_S

    def may_be_real(self, seconds: float, passed: float) -> bool:
        """Return whether what is early took so long that this DCU may well keep time."""
        return passed >= REAL_PART * seconds

    def note(self, seconds: float, passed: float) -> None:
        """Note how long an exposure took of which all images are there."""
        if seconds >= SHORTEST_SUSPECT_S:
            self.part = min(passed / seconds, 1.0 if self.part is None else self.part)
