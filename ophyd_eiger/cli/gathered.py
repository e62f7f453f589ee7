"""What a DCU answered when it was asked for everything that tells of its health. Pure."""

import contextlib
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from ophyd_eiger.cli.asking import FIRST_API_OF_EIGER2, FIRST_API_WITH_IDLE, Answer, bytes_free
from ophyd_eiger.replies import number_of


@dataclass
class Replies:
    """Answers by the resources' full names; what a DCU does not serve is in none of them.

    Attributes
    ----------
    url, api_version, state : str
        Of the DCU.
    answers : dict
        `Answer` by name, as in "detector/config/count_time".
    broken : dict
        Of resources that the DCU has and does not give: what went wrong, by name.
    silent : dict
        Of subsystems that stopped answering: what went wrong, by subsystem.
    files : int or None
        How many files are on the DCU.
    asked_at : float or None
        When detector/status/time was asked for, by this computer's clock: s since 1970.
    """

    url: str
    api_version: str
    state: str
    answers: dict[str, Answer] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    files: int | None = None
    asked_at: float | None = None

    def value(self, resource: str) -> Any:
        """Return a value; None if there is none."""
        answer = self.answers.get(resource)
        return None if answer is None else answer.value

    def number(self, resource: str) -> float | None:
        """Return a value as a number; None if it is none."""
        return number_of(self.value(resource))

    def setting(self, key: str) -> Any:
        """Return the value of a setting of the detector."""
        return self.value(f"detector/config/{key}")

    @property
    def api(self) -> tuple[int, ...]:
        """The first two numbers of the API version."""
        return tuple(int(part) for part in self.api_version.split(".")[:2] if part.isdigit())

    @property
    def tells_idle(self) -> bool:
        """Whether the state of this API tells an initialized detector from an armed one."""
        return self.api >= FIRST_API_WITH_IDLE

    @property
    def generation(self) -> str:
        """EIGER or EIGER2, which serves API 1.6, too, so that its own words count more."""
        words = str(self.setting("description") or "").upper()
        return "EIGER2" if "EIGER2" in words or self.api >= FIRST_API_OF_EIGER2 else "EIGER"

    def buffer_free(self) -> float | None:
        """Return the room for files, in bytes."""
        return bytes_free(self.answers.get("filewriter/status/buffer_free"), self.api)

    def series_images(self) -> float | None:
        """Return the number of images of the series that is set up."""
        images, triggers = (
            self.number("detector/config/nimages"),
            self.number("detector/config/ntrigger"),
        )
        return None if images is None or triggers is None else images * triggers

    def series_bytes(self) -> float | None:
        """Return the size of that series without compression, in bytes."""
        factors = [
            self.series_images(),
            self.number("detector/config/x_pixels_in_detector"),
            self.number("detector/config/y_pixels_in_detector"),
            self.number("detector/config/bit_depth_image"),
        ]
        product = 1 / 8
        for factor in factors:
            if factor is None:
                return None
            product *= factor
        return product

    def age(self, answer: Answer) -> float | None:
        """Return how long ago the DCU took a value, by its own clock, in s; None if not told."""
        now = self.value("detector/status/time")
        if not answer.taken or not isinstance(now, str):
            return None
        with contextlib.suppress(ValueError):
            # Measured values have the DCU's local time without its zone.
            times = [
                dt.datetime.fromisoformat(one).replace(tzinfo=None) for one in (now, answer.taken)
            ]
            return max(0.0, (times[0] - times[1]).total_seconds())
        return None
