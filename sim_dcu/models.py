"""The detectors that can be simulated, and what is particular to each.

A figure without a source is marked as an estimate, with the reason for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim_dcu.geometry import EIGER1, EIGER2, Generation, detector_size

# The region of interest that is the whole detector.
WHOLE = "disabled"


@dataclass(frozen=True)
class Durations:
    """How long a detector takes for what it does on its own, in s.

    Attributes
    ----------
    initialize : float
        "Up to 2 minutes" in the reference, taken for a 16M's 32 modules; 20 s is an estimate for
        one or two modules, and between them it grows with the modules (an estimate).
    arm : float
        After a change of the configuration. EIGER1: "up to 17 s" in the reference, taken for a
        16M; 2 s is an estimate for one or two modules. EIGER2: 0.5 to 2 s in users' reports.
    arm_again : float
        With nothing changed since: 0.7 s in a client's log; an EIGER2 needs no more than its arm.
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
class Region:
    """A region of interest, in whole modules: its first one and how many, along each axis."""

    first_x: int
    first_y: int
    modules_x: int
    modules_y: int


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
    shortest_count_time : float
        In s; the default is what users' notes say of EIGER1 (those of EIGER2 are in its table).
    links : int
        Data links fitted, of the four that `status/link_0` to `link_3` name.
    sensor_thickness : float
        In m.
    shortest_32_bit : float
        From which count time in s an image has 32 bits.
    regions : mapping
        The regions of interest beside the whole detector, by the value of `roi_mode`.
    region_frame_time : float
        The shortest frame time in s with one of them.
    """

    name: str
    modules_x: int
    modules_y: int
    description: str
    detector_number: str
    readout_time: float
    shortest_frame_time: float
    shortest_count_time: float = 2.99999e-06
    links: int = 4
    sensor_thickness: float = 0.00045
    shortest_32_bit: float = 0.01
    regions: Mapping[str, Region] = field(default_factory=dict)
    region_frame_time: float = 0.0
    generation: Generation = EIGER1

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (y, x) of an image in pixels."""
        return detector_size(self.modules_x, self.modules_y, self.generation)

    @property
    def durations(self) -> Durations:
        """How long it takes for what it does on its own."""
        # 0 for one or two modules, 1 for the 32 of a 16M.
        size = max(0, self.modules_x * self.modules_y - 2) / 30
        if self.generation is EIGER2:
            arm = 0.5 + 1.5 * size
            return Durations(initialize=20 + 100 * size, arm=arm, arm_again=min(0.7, arm))
        return Durations(initialize=20 + 100 * size, arm=2 + 15 * size)

    def place(self, region: str) -> tuple[slice, slice]:
        """Return the rows and columns of the whole detector that a region shows."""
        if region == WHOLE:
            height, width = self.shape
            return slice(0, height), slice(0, width)
        part = self.regions[region]
        height, width = detector_size(part.modules_x, part.modules_y, self.generation)
        top = part.first_y * self.generation.pitch_y
        left = part.first_x * self.generation.pitch_x
        return slice(top, top + height), slice(left, left + width)


# Which modules a 4M region reads is documented nowhere: estimates, the middle rows, and the middle,
# left or right columns as the name says (for the three columns of a 9M the left ones).
_4M_OF_9M = {"4M": Region(0, 1, 2, 4)}
_4M_OF_16M = {"4M": Region(1, 2, 2, 4)}
_LEFT_RIGHT_OF_9M = {"4M-L": Region(0, 1, 2, 4), "4M-R": Region(1, 1, 2, 4)}
_LEFT_RIGHT_OF_16M = {"4M-L": Region(0, 2, 2, 4), "4M-R": Region(2, 2, 2, 4)}


def _eiger1(
    size: str, modules: tuple[int, int], readout_time: float, frame_time: float, **more: object
) -> Model:
    number = f"E-{modules[0] * modules[1]:02d}-0000"
    return Model(
        f"eiger-{size.lower()}",
        *modules,
        f"Dectris Eiger {size}",
        number,
        readout_time,
        frame_time,
        **more,  # type: ignore[arg-type]
    )


def _eiger2(size: str, modules: tuple[int, int], frame_time: float, **more: object) -> Model:
    # 100 ns: the stream header of a real EIGER2 Si 16M, as are the description and the sensor.
    number = f"E-{modules[0] * modules[1]:02d}-0000"
    return Model(
        f"eiger2-{size.lower()}",
        *modules,
        f"Dectris EIGER2 Si {size}",
        number,
        1e-07,
        frame_time,
        generation=EIGER2,
        **more,  # type: ignore[arg-type]
    )


MODELS = {
    model.name: model
    for model in (
        # Times and the two links: replies of a real EIGER 500K.
        _eiger1(
            "500K",
            (1, 1),
            7.46420664654579e-06,
            0.000110111112,
            shortest_count_time=2.9999e-06,
            links=2,
        ),
        # Rates 3000, 750, 238 and 133 Hz: the maker's for the EIGER X series. Read-out time: that
        # of real 9M's and 16M's files, for 1M and 4M an estimate after them. Four links: an
        # estimate, as only the 500K is known to have fewer. Sensors: a real 16M's is 320 um; the
        # others' 450 um is the 500K's, an estimate.
        _eiger1("1M", (1, 2), 1e-05, 1 / 3000),
        _eiger1("4M", (2, 4), 1e-05, 1 / 750),
        _eiger1("9M", (3, 6), 1e-05, 1 / 238, regions=_4M_OF_9M, region_frame_time=1 / 750),
        _eiger1(
            "16M",
            (4, 8),
            1e-05,
            1 / 133,
            sensor_thickness=0.00032,
            regions=_4M_OF_16M,
            region_frame_time=1 / 750,
        ),
        # Frame times are estimates: images turn to 8 bits below 0.45 ms (areaDetector's notes name
        # the 4M and the XE series), so the small ones are given twice that rate, 4500 Hz, and the
        # 9M and 16M that of the 4M divided by their modules. Two links of the 500K: an estimate,
        # as for EIGER1. 6.6 ms: areaDetector's notes on the EIGER2 500K.
        _eiger2("500K", (1, 1), 1 / 4500, links=2, shortest_32_bit=0.0066),
        _eiger2("1M", (1, 2), 1 / 4500),
        _eiger2("4M", (2, 4), 1 / 4500),
        _eiger2("9M", (3, 6), 1 / 2000, regions=_LEFT_RIGHT_OF_9M, region_frame_time=1 / 4500),
        _eiger2("16M", (4, 8), 1 / 1125, regions=_LEFT_RIGHT_OF_16M, region_frame_time=1 / 4500),
    )
}
