"""The detectors that can be simulated, and what is particular to each.

A figure without a source is marked as an estimate, with the reason for it.
"""

from dataclasses import dataclass

from sim_dcu.geometry import EIGER1, Generation, detector_size


@dataclass(frozen=True)
class Durations:
    """How long a detector takes for what it does on its own, in s.

    Attributes
    ----------
    initialize : float
        "Up to 2 minutes" in the reference; 20 s is an estimate for one or two modules.
    arm : float
        After a change of the configuration. "Up to 17 s" in the reference; 2 s is an estimate for
        one or two modules, whose configuration is a fraction of a 16M's.
    arm_again : float
        With nothing changed since: 0.7 s in a client's log.
    put : float
        A detector/config put: 0.3 s in a client's log.
    slow_put : float
        A put that has the flatfield computed anew: "seconds" in users' reports; 3 s is an estimate.
    restart : float
        Until the service answers again: clients wait 2 s.
    """

    initialize: float = 20.0
    arm: float = 2.0
    arm_again: float = 0.7
    put: float = 0.3
    slow_put: float = 3.0
    restart: float = 2.0


@dataclass(frozen=True)
class Model:
    """One detector.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    modules_x, modules_y : int
        Number of modules along each axis.
    description : str
        `config/description`.
    detector_number : str
        The serial number: E, the number of modules, a number no real detector has.
    readout_time : float
        Dead time between two frames in s.
    shortest_frame_time : float
        In s; the inverse of the fastest frame rate.
    links : int
        Data links fitted, of the four that `status/link_0` to `link_3` name.
    """

    name: str
    modules_x: int
    modules_y: int
    description: str
    detector_number: str
    readout_time: float
    shortest_frame_time: float
    links: int
    generation: Generation = EIGER1
    durations: Durations = Durations()

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (y, x) of an image in pixels."""
        return detector_size(self.modules_x, self.modules_y, self.generation)


MODELS = {
    model.name: model
    for model in (
        # Read-out time, fastest frame time and the two links: replies of a real EIGER 500K.
        Model("eiger-500k", 1, 1, "Dectris Eiger 500K", "E-01-0000", 7.4642e-06, 0.00011011, 2),
        # 3000 Hz: the maker's rate for an EIGER X 1M. Read-out time: an estimate, the one of the
        # 9M's and 16M's files; four links: an estimate, as only the 500K is known to have fewer.
        Model("eiger-1m", 1, 2, "Dectris Eiger 1M", "E-02-0000", 1e-05, 1 / 3000, 4),
    )
}
