"""What the device itself is told of a point: values that are not the DCU's. Sends nothing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ophyd import Signal

from ophyd_eiger.metadata import Metadata
from ophyd_eiger.signals import EigerSignal, LimitError
from ophyd_eiger.worker import EigerStatus


class TriggersPerPoint(Signal):
    """How many triggers a point of a step scan takes; a whole number, 1 at least."""

    def check_value(self, value: Any) -> int:
        """Return the number.

        Raises
        ------
        LimitError
        """
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LimitError(f"{self.name}: {value!r} is not a whole number of 1 or more")
        return value

    def set(self, value: Any, **kwargs: Any) -> EigerStatus:
        """Set the number; done at once."""
        return _set_now(self, self.check_value(value))


class PointExposure(Signal):
    """The exposure of a point's images in trigger mode inte, in s.

    A number, for each of the point's images; or a sequence, one number an image, which also says
    how many images a point has. None, as it begins, leaves `count_time` to say it.
    """

    @property
    def seconds(self) -> tuple[float, ...]:
        """The exposure of each image in s: one for all, or none where count_time says it."""
        value: Any = self._readback
        if value is None:
            return ()
        return tuple(value) if isinstance(value, tuple) else (value,)

    def check_value(self, value: Any) -> float | tuple[float, ...] | None:
        """Return the value as it is kept.

        Raises
        ------
        LimitError
            If it is no exposure, or none that the detector's count_time may have.
        """
        if value is None:
            return None
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if isinstance(value, Sequence) and not isinstance(value, str):
            if not value:
                raise LimitError(f"{self.name}: an empty list holds no exposure")
            return tuple(self._checked(one) for one in value)
        return self._checked(value)

    def _checked(self, value: Any) -> float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise LimitError(f"{self.name}: {value!r} is no exposure in s")
        detector: Any = getattr(self.parent, "detector", None)
        count_time: EigerSignal | None = getattr(detector, "count_time", None)
        limits = (count_time and count_time.dcu_metadata) or Metadata(value_type="float")
        try:
            return limits.checked(float(value))
        except ValueError as error:
            raise LimitError(f"{self.name}: {value!r} {error} config/count_time") from None

    def set(self, value: Any, **kwargs: Any) -> EigerStatus:
        """Set the exposure of the points to come; done at once.

        Raises
        ------
        LimitError
            If it is no exposure, or if a scan whose trigger mode takes none is under way.
        """
        checked = self.check_value(value)
        parent: Any = self.parent
        mode = getattr(getattr(parent, "detector", None), "trigger_mode", None)
        if checked is not None and mode is not None and parent.is_staged and mode.last != "inte":
            raise LimitError(
                f"{self.name}: points have an exposure of their own in trigger_mode inte alone, "
                f"and it is {mode.last}; scan {parent.name}.detector.count_time, or set "
                "trigger_mode inte before the scan"
            )
        return _set_now(self, checked)

    @property
    def hints(self) -> dict[str, Any]:
        """What a scan over it is plotted over: its value, if it is one number."""
        return {} if isinstance(self._readback, tuple) else {"fields": [self.name]}

    def reading(self, seconds: tuple[float, ...]) -> Any:
        """Return what an event records of a point's exposures: a number, or a list."""
        return seconds[0] if not isinstance(self._readback, tuple) else list(seconds)

    def describe(self) -> dict:
        """Return the data key; with a list its shape."""
        value = self._readback
        listed = isinstance(value, tuple)
        return {
            self.name: {
                "source": f"PY:{self.name}",
                "dtype": "array" if listed else "number",
                "dtype_numpy": "<f8",
                "shape": [len(value)] if isinstance(value, tuple) else [],
                "units": "s",
            }
        }


def _set_now(signal: Signal, value: Any) -> EigerStatus:
    status = EigerStatus(f"{signal.name}: set {value!r}")
    Signal.put(signal, value, force=True)
    status.set_finished()
    return status
