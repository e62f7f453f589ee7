"""What an acceptance test asks of a detector: rates, times and limits, with their units.

Pure: no requests, no plans.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Conditions:
    """What an acceptance test asks of a detector; parameters as of `acceptance_test`.

    Raises
    ------
    ValueError
        If a number makes no sense.
    """

    frame_rate: float = 10.0
    seconds: float = 3.0
    download_rate: float = 10.0
    temperature: tuple[float, float] = (10.0, 40.0)
    humidity: tuple[float, float] = (0.0, 35.0)
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("frame_rate", "seconds", "download_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; it is above 0")
        if not (math.isfinite(self.time_scale) and self.time_scale >= 0):
            raise ValueError(f"time_scale is {self.time_scale!r}; it is at least 0")
        for name in ("temperature", "humidity"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    f"{name} is ({low}, {high}); both are finite, and the lower limit comes first"
                )

    def in_words(self) -> dict[str, str]:
        """Return them with their units, for the report."""
        units = {
            "frame_rate": "Hz",
            "seconds": "s",
            "download_rate": "MB/s",
            "temperature": "degree Celsius",
            "humidity": "%",
        }
        return {
            name: f"{_in_figures(value)} {units.get(name, '')}".rstrip()
            for name, value in asdict(self).items()
        }


def _in_figures(value: Any) -> str:
    return " to ".join(f"{one:g}" for one in (value if isinstance(value, tuple) else (value,)))
