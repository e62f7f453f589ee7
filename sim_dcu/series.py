"""What one arm froze: the facts from which a series' images and files follow.

Knows nothing of HTTP, threads or files. The producer, the file writer and the oracle each take an
`ArmedSeries` and nothing else, so that none of them needs the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim_dcu.beam import DEFAULT_BEAM, Beam


@dataclass(frozen=True)
class ArmedSeries:
    """The configuration a series was armed with.

    Attributes
    ----------
    series_id : int
        The `sequence id` that the arm command answered.
    seed : int
        The simulator's seed.
    detector : Mapping[str, Any]
        Every detector/config value by key as at arm (`count_time` in s, `photon_energy` in eV,
        `bit_depth_image`, `nimages`, `ntrigger`, ...), the arrays `flatfield` (float32, (y, x))
        and `pixel_mask` (uint32, (y, x)) among them. Read-only arrays, never changed in place.
    filewriter : Mapping[str, Any]
        Every filewriter/config value by key as at arm.
    beam : Beam
        What shines on the detector.
    whole : tuple of int or None
        The shape (y, x) of the whole detector; None where all of it is read out.
    origin : tuple of int
        (row, column) of an image's first pixel in the whole detector.
    exposures : dict
        The exposure in s by the image's number, from 1, of those whose trigger or gate brought one
        of its own; the one thing that is not settled at arm.
    """

    series_id: int
    seed: int
    detector: Mapping[str, Any] = field(repr=False)
    filewriter: Mapping[str, Any] = field(repr=False)
    beam: Beam = DEFAULT_BEAM
    whole: tuple[int, int] | None = None
    origin: tuple[int, int] = (0, 0)
    exposures: dict[int, float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def images(self) -> int:
        """The number of images promised, `nimages` x `ntrigger`."""
        return int(self.detector["nimages"]) * int(self.detector["ntrigger"])

    def exposure(self, number: int) -> float:
        """Return the exposure of image `number` (from 1) in s."""
        return self.exposures.get(number, float(self.detector["count_time"]))

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (y, x) of an image in pixels."""
        detector = self.detector
        return int(detector["y_pixels_in_detector"]), int(detector["x_pixels_in_detector"])

    @property
    def dtype(self) -> np.dtype:
        """The little-endian unsigned type of an image's pixels, from `bit_depth_image`."""
        return np.dtype(f"<u{int(self.detector['bit_depth_image']) // 8}")

    @property
    def image_bytes(self) -> int:
        """The size of an image that is not compressed."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def basename(self) -> str:
        """The name pattern with `$id` filled in, the start of each file's name."""
        return str(self.filewriter["name_pattern"]).replace("$id", str(self.series_id))
