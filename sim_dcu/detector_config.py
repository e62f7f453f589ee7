"""The detector's configuration: what a put would change, worked out before anything changes.

Between the parameters and the rules. Knows nothing of states, time, threads or HTTP; not locked.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from sim_dcu import dependencies
from sim_dcu.calibration import Calibration, read_only
from sim_dcu.firmware import Firmware
from sim_dcu.models import WHOLE, Model
from sim_dcu.parameters import (
    MissingError,
    NotAllowedError,
    ParameterStore,
    RefusedError,
    UnknownResourceError,
)

# In a whole configuration what others follow from comes first, and of two that follow from each
# other the one that must hold comes last; everything else follows in alphabetical order.
_FIRST = (
    "roi_mode",
    "trigger_mode",
    "wavelength",
    "incident_energy",
    "photon_energy",
    "element",
    "threshold_energy",
    "frame_time",
    "count_time",
)


class DetectorConfig:
    """Every detector/config value of one detector.

    Parameters
    ----------
    model : Model
        Which detector.
    firmware : Firmware
        Its generation's.
    seed : int
        Of the bad pixels.

    Attributes
    ----------
    store : ParameterStore
        The parameters and their values.
    """

    def __init__(self, model: Model, firmware: Firmware, seed: int):
        self._model = model
        self._firmware = firmware
        self._rules = firmware.rules
        self._calibration = Calibration(model, seed)
        tables = firmware.tables
        self.store = ParameterStore(
            tables.detector_config(
                model, self._calibration.flatfield(WHOLE), self._calibration.pixel_mask
            ),
            self._rules.rounding,
            tables.internal_values(model, self._calibration.pixel_mask),
            reads_text=firmware.reads_text,
        )
        self.reset()

    def reset(self) -> None:
        """Set everything to its default; a user's masks stay where the firmware keeps them."""
        masks = {}
        if self._firmware.masks_stay:
            masks = {mask.mask: self.store[mask.full_mask] for mask in self._rules.thresholds}
        self.store.reset()
        self.store.update(self._rules.derived(self.store.values(), ""))
        for key, mask in masks.items():
            self.apply(self._settled(self.store, key, mask))

    def name(self, key: str) -> str:
        """Return the name under which `key` is served."""
        return self._firmware.tables.ALIASES.get(key, key)

    def check(self, key: str, value: object) -> Any:
        """Return `value` as parameter `key` keeps it.

        Raises
        ------
        MissingError, RefusedError
            Where there is no such parameter, or it does not take the value.
        """
        return self._checked(self.store, key, value)

    def change(self, key: str, value: Any) -> tuple[dict[str, Any], list[str]]:
        """Return what a put of a checked value changes, and the names its reply holds."""
        changed = self._settled(self.store, key, value)
        return changed, dependencies.named_in_reply(self._rules, key, changed)

    def change_all(self, entries: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
        """Return what a put of a whole configuration changes, and the names its reply holds.

        Entries that are read-only, or follow from another entry, are passed over, so that a
        configuration that was read can be put back as it is.

        Raises
        ------
        MissingError, RefusedError
            Where an entry does not exist or is refused.
        """
        scratch = copy.copy(self.store)
        names: set[str] = set()
        for key in self._ordered(entries):
            value = self._checked(scratch, key, entries[key])
            changed = self._settled(scratch, key, value)
            self._apply(scratch, changed)
            names.update(dependencies.named_in_reply(self._rules, key, changed))
        before, after = self.store.values(), scratch.values()
        return {key: after[key] for key in after if after[key] is not before[key]}, sorted(names)

    def delete(self, key: str) -> tuple[dict[str, Any], list[str]]:
        """Return what bringing the factory's mask back changes, and the names of that.

        Raises
        ------
        MissingError
            Where there is no such parameter, or the mask is the factory's.
        NotAllowedError
            Where it is no mask.
        """
        self.store.known(key)
        first = self._rules.twins.get(key, key)
        full = {threshold.mask: threshold.full_mask for threshold in self._rules.thresholds}
        if first not in full:
            raise NotAllowedError(f"{key} cannot be deleted")
        factory = self._calibration.pixel_mask
        if self.store[full[first]] is factory:
            raise MissingError(f"{key} is the factory's, there is none of a user")
        changed, names = self.change(key, self._calibration.cut(factory, self.store["roi_mode"]))
        changed[full[first]] = factory
        return changed, names

    def apply(self, changed: Mapping[str, Any]) -> None:
        """Make a change."""
        self._apply(self.store, changed)

    def armed_values(self) -> dict[str, Any]:
        """Return what a series is armed with: every value, and what the files say beside them."""
        values = self.store.values()
        values |= self._rules.derived(values, "")
        if values["trigger_mode"] in ("inte", "exte"):
            # One image a trigger or gate, whatever nimages says (user manual of EIGER2).
            values["nimages"] = 1
        elif values["trigger_mode"] == "eies":
            # 11 signals make 10 images (user manual of EIGER2, 9.6).
            values["nimages"], values["ntrigger"] = 1, max(1, values["ntrigger"] - 1)
        return {**self._firmware.tables.file_values(self._model), **values}

    @property
    def whole(self) -> tuple[int, int]:
        """The shape (y, x) of the whole detector in pixels."""
        return self._calibration.shape(WHOLE)

    @property
    def origin(self) -> tuple[int, int]:
        """(row, column) of the first pixel that is read out, in the whole detector."""
        return self._calibration.origin(self.store["roi_mode"])

    def settle(self) -> None:
        """Bring what is final only after arm up to date."""
        self.store.update(self._rules.derived(self.store.values(), ""))

    def check_series(self) -> None:
        """Refuse to arm what no detector can take.

        Raises
        ------
        RefusedError
            With the reason.
        """
        if reason := self._rules.unarmable(self.armed_values()):
            raise RefusedError(reason)

    def _checked(self, store: ParameterStore, key: str, value: object) -> Any:
        accepted = store.accepted(key, value)
        if reason := self._rules.refusal(store.values(), key, accepted):
            raise RefusedError(reason)
        if isinstance(accepted, np.ndarray):
            if accepted.shape != store[key].shape:
                raise RefusedError(
                    f"{key}: shape {list(accepted.shape)} instead of {list(store[key].shape)}"
                )
            accepted = read_only(accepted)
        return accepted

    def _settled(self, store: ParameterStore, key: str, value: Any) -> dict[str, Any]:
        return dependencies.settled(self._rules, store.values(), key, value, self._calibration)

    def _apply(self, store: ParameterStore, changed: Mapping[str, Any]) -> None:
        store.update(changed)
        if "roi_mode" in changed:
            whole = changed["roi_mode"] == WHOLE
            model = self._model
            shortest = model.shortest_frame_time if whole else model.region_frame_time
            store.set_minimum("frame_time", shortest)

    def _ordered(self, entries: Mapping[str, object]) -> list[str]:
        named = {self.name(key) for key in entries}
        chosen = []
        for key in entries:
            parameter = self.store.parameters.get(key)
            if parameter is None:
                raise UnknownResourceError(f"Parameter {key} does not exist")
            follows = (
                parameter.access != "rw"
                or self._rules.twins.get(key) in named
                or (key == "wavelength" and "photon_energy" in named)
                or (key == "element" and entries[key] == "")
            )
            if not follows:
                chosen.append(key)
        return sorted(chosen, key=lambda key: (_rank(key), key))


def _rank(key: str) -> int:
    return _FIRST.index(key) if key in _FIRST else len(_FIRST)
