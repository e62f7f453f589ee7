"""What faults on request do to a series between two of its images.

Tells the acquisition whether to fail, or to wait; knows nothing of threads, states or files.
"""

from sim_dcu.faults import Faults

_NAMES = ("error", "stall", "die")


class SeriesFaults:
    """The faults of one series.

    Parameters
    ----------
    faults : Faults
        Those that are set.
    series : object
        Tells the series from others.
    """

    def __init__(self, faults: Faults, series: object):
        self._faults = faults
        self._series = series

    @property
    def expected(self) -> bool:
        """Whether any fault that strikes between images is set."""
        return self._faults.active and self._faults.any_of(*_NAMES)

    def failure(self, exposed: int) -> str:
        """Return why the series fails when `exposed` images are exposed; empty where it does not.

        Parameters
        ----------
        exposed : int
            How many of its images are exposed.
        """
        if not self._faults.active:
            return ""
        fault = self._faults.in_series("error", self._series, exposed)
        return str(fault.arguments["text"]) if fault is not None else ""

    def stalls(self, exposed: int, delivered: int) -> bool:
        """Return whether no further image comes as things are.

        Parameters
        ----------
        exposed, delivered : int
            How many of its images are exposed, and how many of them are written.
        """
        if not self._faults.active:
            return False
        death = self._faults.in_series("die", self._series, exposed)
        if death is not None:
            # Which files are whole does not hang on how fast this machine writes.
            # Asked again while it dies: once is enough.
            if delivered >= exposed and death.series_ended is not self._series:
                death.series_ended = self._series
                self._faults.kill(death)
            return True
        return self._faults.in_series("stall", self._series, exposed) is not None
