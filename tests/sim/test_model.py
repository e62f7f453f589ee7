"""Random legal and illegal sequences of puts, commands and signals, of both generations.

What must always hold is written out here from the vendor's tables and users' recordings: which
command is legal in which state, which state follows which, which names a put's reply has, and what
keeps energies and times consistent. The rules of the simulator are not asked.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sim_dcu.clock import Clock
from sim_dcu.dcu import Dcu
from sim_dcu.parameters import ApiError

HC_OVER_E = 12398.41984332

# -- what is documented ---------------------------------------------------------------------------

LEGAL = {
    "initialize": {"na", "idle", "ready", "acquire", "error"},
    "arm": {"idle"},
    "trigger": {"ready"},
    "disarm": {"idle", "ready", "acquire"},
    "cancel": {"idle", "ready", "acquire"},
    "abort": {"idle", "ready", "acquire"},
}
FOLLOWS = {
    "na": {"initialize"},
    "initialize": {"idle"},
    "idle": {"configure", "initialize", "na"},
    "configure": {"ready", "idle"},
    "ready": {"acquire", "idle", "initialize"},
    "acquire": {"ready", "idle", "initialize"},
}
_TIMES_1 = {
    "bit_depth_image", "countrate_correction_count_cutoff", "frame_count_time", "frame_period",
    "nframes_sum",
}  # fmt: skip
_ENERGY_1 = {"element", "flatfield", "photon_energy", "threshold_energy", "wavelength"}
_TIMES_2 = {
    "bit_depth_image", "bit_depth_readout", "count_time", "countrate_correction_count_cutoff",
    "frame_count_time", "frame_time",
}  # fmt: skip
_FIELDS_2 = {"flatfield", "threshold/1/flatfield", "threshold/2/flatfield"}
_ENERGY_2 = _FIELDS_2 | {
    "element", "incident_energy", "photon_energy", "threshold/1/energy", "threshold/2/energy",
    "threshold_energy", "wavelength",
}  # fmt: skip
_THRESHOLD_2 = _FIELDS_2 | {"threshold/1/energy", "threshold_energy"}
# Named whether or not they moved.
ALWAYS_NAMED: dict[str, dict[str, set[str]]] = {
    "eiger-500k": {
        "count_time": _TIMES_1,
        "frame_time": _TIMES_1,
        "photon_energy": _ENERGY_1,
        "element": _ENERGY_1,
        "wavelength": _ENERGY_1,
        "threshold_energy": {"flatfield"},
    },
    "eiger2-500k": {
        "auto_summation": {"frame_count_time"},
        "count_time": _TIMES_2,
        "frame_time": _TIMES_2,
        "photon_energy": _ENERGY_2,
        "incident_energy": _ENERGY_2,
        "element": _ENERGY_2,
        "wavelength": _ENERGY_2,
        "threshold_energy": _THRESHOLD_2,
        "threshold/1/energy": _THRESHOLD_2,
        "threshold/2/energy": _FIELDS_2,
        "threshold/1/mode": {"threshold/difference/mode"},
        "threshold/2/mode": {"threshold/difference/mode"},
        "flatfield": {"threshold/1/flatfield"},
        "pixel_mask": {"threshold/1/pixel_mask"},
        "threshold/1/pixel_mask": {"pixel_mask"},
    },
}
# What changes with these and is in no reply of an EIGER2.
_EXCLUDED = {"number_of_excluded_pixels", "threshold/1/number_of_excluded_pixels"}
UNNAMED = {
    "beam_center_x": {"detector_translation"},
    "detector_distance": {"detector_translation"},
    "pixel_mask": _EXCLUDED,
    "threshold/1/pixel_mask": _EXCLUDED,
    "threshold/2/pixel_mask": {"threshold/2/number_of_excluded_pixels"},
}
# Puts whose reply is this and nothing else.
WHOLE_REPLY = {
    "eiger-500k": {},
    "eiger2-500k": {
        "threshold/difference/mode": {"difference_mode"},
        "roi_mode": {"count_time", "frame_time", "roi_mode"},
    },
}

# -- what is tried --------------------------------------------------------------------------------

_WRONG = st.sampled_from([None, "x", True, -1, 1e300, float("nan"), [], [1.0], {}, 2**40, 0.5])


def _mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(good, good, good, _WRONG)


_ENERGIES = _mostly(st.floats(1000, 40000))
_MODES = _mostly(st.sampled_from(["enabled", "disabled"]))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "count_time": _mostly(st.floats(1e-7, 4000) | st.floats(1e-4, 0.1) | st.floats(0.1, 10)),
    "frame_time": _mostly(st.floats(1e-5, 4e5) | st.floats(1e-4, 0.1) | st.floats(0.1, 10)),
    "nimages": _mostly(st.integers(0, 3)),
    "ntrigger": _mostly(st.integers(0, 3)),
    "photon_energy": _ENERGIES,
    "wavelength": _mostly(st.floats(0.2, 4)),
    "element": _mostly(st.sampled_from(["Cu", "Mo", "Fe", "Li", "Zn", "Ce", ""])),
    "threshold_energy": _ENERGIES,
    "trigger_mode": _mostly(st.sampled_from(["ints", "exts", "inte", "exte", "extg", "eies"])),
    "auto_summation": _mostly(st.booleans()),
    "beam_center_x": _mostly(st.floats(-5000, 5000)),
    "detector_distance": _mostly(st.floats(0, 10)),
    "compression": _mostly(st.sampled_from(["bslz4", "lz4", "none"])),
    "roi_mode": _mostly(st.just("disabled")),
    "bit_depth_image": _WRONG,
    "description": _WRONG,
    "no_such": _WRONG,
    "incident_energy": _ENERGIES,
    "threshold/1/energy": _ENERGIES,
    "threshold/2/energy": _ENERGIES,
    "threshold/1/mode": _MODES,
    "threshold/2/mode": _MODES,
    "threshold/difference/mode": _MODES,
    "extg_mode": _mostly(st.sampled_from(["single", "double"])),
    "nexpi": _mostly(st.integers(0, 3)),
}
ARRAYS = ("flatfield", "pixel_mask", "threshold/1/pixel_mask", "threshold/2/flatfield")


def _puts(keys: list[str]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.sampled_from(keys).flatmap(lambda key: st.tuples(st.just(key), VALUES[key]))


PUTS = _puts(sorted(VALUES))
# What depends on each other is put more often than its share of the names.
CONNECTED_PUTS = _puts(["count_time", "frame_time", "photon_energy", "wavelength", "element"])


def resolved(answer: Any) -> Any:
    while isinstance(answer, Future):
        answer = answer.result(30)
    return answer


class Detector(RuleBasedStateMachine):
    """One DCU and whoever plays with it."""

    model = "eiger-500k"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.dcu = Dcu(self.model, Path(self.folder.name), Clock(0), seed=1, initialized=True)
        # The files have judges of their own; without them a series takes no time.
        resolved(self.dcu.put_config("filewriter", "mode", "disabled"))

    def teardown(self) -> None:
        self.dcu.close()
        self.folder.cleanup()

    @property
    def state(self) -> str:
        return self.dcu.read_status("detector", "state")["value"]

    def values(self) -> dict[str, Any]:
        store = self.dcu.detector.config
        return {key: self.dcu.read_config("detector", key)["value"] for key in store.parameters}

    def refused(self, action: Callable[[], Any]) -> ApiError | None:
        """Do something and return how it was refused; then wait for what it started."""
        error = None
        try:
            self.answer = resolved(action())
        except ApiError as refusal:
            error = refusal
            assert error.status in (400, 404)
        end = time.monotonic() + 20
        while self.state in ("acquire", "configure", "initialize"):
            assert time.monotonic() < end
        return error

    @rule(put=PUTS)
    def put(self, put: tuple[str, Any]) -> None:
        self.check_put(*put)

    @rule(put=CONNECTED_PUTS)
    def put_connected(self, put: tuple[str, Any]) -> None:
        self.make_idle()
        self.check_put(*put)

    @rule()
    def make_idle(self) -> None:
        self.command("initialize" if self.state == "na" else "disarm")

    @rule(key=st.sampled_from(ARRAYS), place=st.integers(0, 500), wrong=st.booleans())
    def put_array(self, key: str, place: int, wrong: bool) -> None:
        if self.state == "na" or key not in self.dcu.detector.config.parameters:
            return
        array = self.dcu.read_config("detector", key)["value"].copy()
        array[place, place] = 1
        self.check_put(key, array.T if wrong else array)

    def check_put(self, key: str, value: Any) -> None:
        if self.state == "na":
            assert self.refused(lambda: self.dcu.put_config("detector", key, value)) is not None
            return
        before, state = self.values(), self.state
        error = self.refused(lambda: self.dcu.put_config("detector", key, value))
        after = self.values()
        moved = {name for name in after if not same(before[name], after[name])}
        if error is not None:
            assert not moved
            return
        assert state == "idle"
        names = set(self.answer)
        assert self.answer == sorted(names)
        whole = WHOLE_REPLY[self.model].get(key)
        if whole is not None:
            assert names == whole
            assert moved <= {key}
            return
        always = ALWAYS_NAMED[self.model].get(key, set()) | {key}
        unnamed = UNNAMED.get(key, set()) if self.model == "eiger2-500k" else set()
        assert always <= names <= always | moved - unnamed
        assert moved <= names | unnamed
        if isinstance(value, float):
            assert after[key] == pytest.approx(value, rel=1e-6, abs=1e-9)
        else:
            assert same(after[key], value)

    @rule(command=st.sampled_from(sorted(LEGAL)))
    def command(self, command: str) -> None:
        state = self.state
        mode = None if state == "na" else self.values()["trigger_mode"]
        error = self.refused(lambda: self.dcu.command("detector", command))
        if state not in LEGAL[command]:
            assert error is not None
            assert self.state == state
        elif command == "trigger":
            assert (error is None) == (mode in ("ints", "inte"))
        elif command != "arm":
            assert error is None
        if error is None:
            expected = {"arm": {"ready"}, "trigger": {"ready", "idle"}}.get(command, {"idle"})
            assert self.state in expected

    @rule(chance=st.integers(0, 9))
    def restart(self, chance: int) -> None:
        if chance:
            return
        assert self.refused(lambda: self.dcu.command("system", "restart")) is None
        assert self.state == "na"

    @rule(gate=st.booleans())
    def signal(self, gate: bool) -> None:
        state = self.state
        mode = None if state == "na" else self.values()["trigger_mode"]
        taken = self.dcu.gate(0.1) if gate else self.dcu.pulse()
        wanted = {"exte", "extg"} if gate else {"exts", "eies"}
        if state != "ready" or mode not in wanted:
            assert not taken
        elif mode in ("exte", "exts"):
            assert taken
        self.refused(lambda: None)

    @invariant()
    def states_follow_each_other(self) -> None:
        passed = [str(state) for state in self.dcu.detector.state.passed]
        for earlier, later in pairwise(passed):
            assert later in FOLLOWS[earlier] | {"na"}, passed

    @invariant()
    def values_are_consistent(self) -> None:
        if self.state == "na":
            return
        values = self.values()
        assert values["count_time"] + values["detector_readout_time"] <= values["frame_time"]
        energy = values["photon_energy"]
        assert energy * values["wavelength"] == pytest.approx(HC_OVER_E, rel=1e-6)
        assert values["number_of_excluded_pixels"] == np.count_nonzero(values["pixel_mask"])
        assert values["bit_depth_image"] in (8, 16, 32)
        translation = [values["beam_center_x"] * 75e-6, values["beam_center_y"] * 75e-6]
        translation.append(-values["detector_distance"])
        assert values["detector_translation"] == pytest.approx(translation, rel=1e-6, abs=2e-9)
        for key in ("count_time", "frame_time", "nimages", "ntrigger", "photon_energy"):
            reply = self.dcu.read_config("detector", key)
            assert reply.get("min", -np.inf) <= reply["value"] <= reply.get("max", np.inf)
        if self.model == "eiger2-500k":
            assert values["incident_energy"] == energy
            assert values["threshold/1/energy"] == values["threshold_energy"]
            assert values["threshold/1/pixel_mask"] is values["pixel_mask"]
            assert values["threshold/1/flatfield"] is values["flatfield"]
            if values["trigger_mode"] in ("inte", "exte"):
                assert values["nimages"] == 1


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one is other or np.array_equal(one, other)
    return one == other


class Detector2(Detector):
    model = "eiger2-500k"


def run(machine: type[Detector], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [Detector, Detector2], ids=lambda machine: machine.model)
def test_random_sequences(machine: type[Detector]) -> None:
    run(machine, examples=30, steps=40)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", [Detector, Detector2], ids=lambda machine: machine.model)
def test_many_random_sequences(machine: type[Detector]) -> None:
    run(machine, examples=600, steps=50)
