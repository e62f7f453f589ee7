"""The goniometer's angles in the DCU, from where they go into the master file."""

from collections.abc import Mapping
from typing import Any

import bluesky.plan_stubs as bps

from eiger_plans.arguments import recorded
from eiger_plans.steps import Plan
from ophyd_eiger import EigerDetector

AXES = ("chi", "kappa", "omega", "phi", "two_theta")


class Goniometer:
    """The axes of a detector's goniometer: which one turns, and where the others stand.

    Parameters
    ----------
    eiger : EigerDetector
        Its DCU writes the files.
    turns : str or None
        The axis that turns while images are taken, if one does.
    standing : mapping, optional
        Where others stand, in degree: a number, or a motor that is asked.

    Raises
    ------
    ValueError
        If an axis is none, or none that this DCU has, or turns and stands, or stands nowhere.
    """

    def __init__(
        self, eiger: EigerDetector, turns: str | None, standing: Mapping[str, Any] | None
    ) -> None:
        self._detector: Any = eiger.detector
        self._standing = dict(standing or {})
        self._turns = turns
        for axis in (*self._standing, *([] if turns is None else [turns])):
            if axis not in AXES:
                raise ValueError(f"{axis!r} is no axis of the goniometer: {', '.join(AXES)}")
            if not self._has(axis):
                raise ValueError(f"{eiger.name}: this DCU has no goniometer axis {axis!r}")
        if turns in self._standing:
            raise ValueError(f"{turns} turns, so that goniometer cannot say where it stands")

    @property
    def standing(self) -> dict[str, Any]:
        """Where axes stand as a run's metadata says it, with motors by their names."""
        return recorded(**self._standing)

    @property
    def signals(self) -> list[Any]:
        """What is changed in the DCU."""
        return [
            getattr(self._detector, f"{axis}_{part}")
            for axis in AXES
            if self._has(axis)
            for part in ("start", "increment")
        ]

    def put(self, start: float | None = None, increment: float = 0.0) -> Plan:
        """Put where each axis is, and that but one of them stands.

        Parameters
        ----------
        start : float, optional
            Where the axis that turns is at the start of the first image, in degree.
        increment : float
            How far it turns from the start of one image to the start of the next, in degree.
        """
        wanted = {}
        for axis in filter(self._has, AXES):
            # Whoever used the detector before may have left an axis turning.
            wanted[f"{axis}_increment"] = 0.0
            if axis in self._standing:
                wanted[f"{axis}_start"] = yield from _position(self._standing[axis])
        if self._turns is not None and start is not None:
            wanted[f"{self._turns}_start"] = float(start)
            wanted[f"{self._turns}_increment"] = float(increment)
        differing: list[Any] = []
        for name, value in wanted.items():
            signal = getattr(self._detector, name)
            if signal.last != value:
                differing += [signal, value]
        if differing:
            yield from bps.mv(*differing)

    def _has(self, axis: str) -> bool:
        return getattr(self._detector, f"{axis}_start").served is not False


def _position(standing: Any) -> Plan:
    if isinstance(standing, (int, float)):
        return float(standing)
    return float((yield from bps.rd(standing)))
