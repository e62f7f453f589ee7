"""What one arm froze: the facts from which a series' images and files follow.

Knows nothing of HTTP, threads or files. The producer, the file writer and the oracle each take an
`ArmedSeries` and nothing else, so that none of them needs the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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
    """

    series_id: int
    seed: int
    detector: Mapping[str, Any] = field(repr=False)
    filewriter: Mapping[str, Any] = field(repr=False)

    @property
    def images(self) -> int:
        """The number of images promised, `nimages` x `ntrigger`."""
        return int(self.detector["nimages"]) * int(self.detector["ntrigger"])

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
    def basename(self) -> str:
        """The name pattern with `$id` filled in, the start of each file's name."""
        return str(self.filewriter["name_pattern"]).replace("$id", str(self.series_id))
