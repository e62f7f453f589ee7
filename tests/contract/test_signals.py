"""Every resource that a DCU serves is a signal, every signal a resource; both say the same.

The DCU is asked by plain HTTP; what it says is compared with what the signals say.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from event_model import DocumentNames, schema_validators

import sim_dcu
from ophyd_eiger import EigerDetector, subsystems
from ophyd_eiger.array_signals import EigerArray
from ophyd_eiger.signals import EigerCommand, EigerSignal

SUBSYSTEMS = ("detector", "filewriter", "monitor", "stream", "system")
SECTIONS = ("config", "status", "command")
VERSIONS = {"eiger-16m": "1.6.0", "eiger2-16m": "1.8.0"}
# What `keys` lists that is no signal, and why: nothing.
NO_SIGNALS: dict[str, str] = {}
PAGE = Path(__file__).parents[2] / "docs" / "simulator_resources.md"
COMPONENTS = {
    f"{name}/{getattr(cls, attribute).suffix}": (attribute, getattr(cls, attribute))
    for name in SUBSYSTEMS
    for cls in [getattr(subsystems, name.capitalize())]
    for attribute in cls.component_names
}


def served(model: str) -> set[str]:
    """Return "subsystem/section/key" of all that a model answers, listed or not."""
    found, subsystem = set(), ""
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"## (\S+): `/(\w+)/api/<v>/`", line):
            subsystem = heading[2] if heading[1] == model else ""
        elif subsystem and (row := re.match(r"\| ((?:config|status|command)/\S+) \|", line)):
            found.add(f"{subsystem}/{row[1]}")
    return found


class Case:
    """A device, and the DCU that it is connected to."""

    def __init__(self, model: str, dcu: sim_dcu.Server, eiger: EigerDetector) -> None:
        self.model, self.dcu, self.eiger = model, dcu, eiger

    def ask(self, resource: str) -> requests.Response:
        subsystem, _, rest = resource.partition("/")
        return requests.get(
            f"{self.dcu.url}/{subsystem}/api/{VERSIONS[self.model]}/{rest}", timeout=30
        )

    def signal(self, resource: str) -> EigerSignal | EigerCommand:
        subsystem = resource.partition("/")[0]
        return getattr(getattr(self.eiger, subsystem), COMPONENTS[resource][0])


@pytest.fixture(scope="module", params=list(VERSIONS))
def case(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp(request.param)
    with sim_dcu.serve(request.param, initialized=True, data_dir=folder / "dcu") as dcu:
        eiger = EigerDetector(dcu.url, name="eiger", directory=folder)
        eiger.connect()
        yield Case(request.param, dcu, eiger)
        eiger.destroy()


def test_all_that_a_dcu_lists_is_a_signal(case: Case) -> None:
    listed = {
        f"{subsystem}/{section}/{key}"
        for subsystem in SUBSYSTEMS
        for section in SECTIONS
        for key in case.ask(f"{subsystem}/{section}/keys").json()
    }
    assert len(listed) > 100
    assert listed - COMPONENTS.keys() == NO_SIGNALS.keys()
    undeclared = [getattr(case.eiger, subsystem).undeclared() for subsystem in SUBSYSTEMS]
    assert undeclared == [[], [], [], [], []]


def test_all_that_a_dcu_answers_is_a_signal_and_each_signal_is_answered() -> None:
    assert served("eiger-16m") | served("eiger2-16m") == COMPONENTS.keys() | NO_SIGNALS.keys()


def test_a_slash_becomes_an_underscore() -> None:
    for resource, (attribute, component) in COMPONENTS.items():
        key = component.suffix.partition("/")[2]
        assert attribute == (key.replace("/", "_") if key != "trigger" else "soft_trigger")
        kinds = {"config": "config", "status": "omitted", "command": "omitted"}
        is_table = component.cls is EigerArray or key == "countrate_correction_table"
        kind = "omitted" if is_table else kinds[component.suffix.partition("/")[0]]
        assert component.kind.name == kind, resource


def test_each_signal_says_what_the_dcu_says(case: Case) -> None:
    """Value, limits, unit and choices, as a plain GET has them."""
    compared = 0
    for resource, (_, component) in COMPONENTS.items():
        if component.cls is not EigerSignal:
            continue
        reply, signal = case.ask(resource), case.signal(resource)
        if reply.status_code != 200:
            assert (signal.served, signal.describe(), signal.read()) == (False, {}, {}), resource
            continue
        stated = reply.json()
        (key,) = signal.describe().values()
        limits = key.get("limits", {})
        control = limits.get("control", {"low": None, "high": None})
        assert control == {"low": stated.get("min"), "high": stated.get("max")}, resource
        alarm = limits.get("alarm", {"low": None, "high": None})
        assert list(alarm.values()) == stated.get("critical_limits", [None, None]), resource
        assert key.get("units", "") == stated.get("unit", ""), resource
        allowed = stated.get("allowed_values", [])
        assert key.get("choices", []) == ([allowed] if isinstance(allowed, str) else allowed)
        assert (signal.dcu_metadata.writable) == ("w" in stated.get("access_mode", "r")), resource
        if component.suffix.startswith("config") and not isinstance(stated["value"], dict):
            assert signal.last == stated["value"], resource
        compared += 1
    assert compared > 80


def test_data_keys_are_valid(case: Case) -> None:
    """As event-model's schema has them, for all signals at once; numpy knows each type."""
    kinds = {"boolean": "b", "integer": "i", "number": "f", "string": "U"}
    keys = {}
    for resource, (_, component) in COMPONENTS.items():
        signal = case.signal(resource)
        if component.cls is EigerSignal:
            keys |= signal.describe()
    descriptor = {"uid": "a", "run_start": "b", "time": 0.0, "data_keys": keys}
    schema_validators[DocumentNames.descriptor].validate(descriptor)
    for name, key in keys.items():
        kind = key["dtype_numpy"][1]
        if key["dtype"] == "array":
            assert len(key["shape"]) == 1, name
            assert kind in "iufU", name
        else:
            assert (kind, key["shape"]) == (kinds[key["dtype"]], []), name
    assert keys["eiger_detector_count_time"]["dtype_numpy"] == "<f8"
    assert keys["eiger_detector_count_time"]["precision"] == 8
    assert keys["eiger_detector_nimages"]["dtype_numpy"] == "<i8"
    assert keys["eiger_detector_auto_summation"]["dtype_numpy"] == "|b1"
    assert keys["eiger_detector_trigger_mode"]["dtype_numpy"] == "<U4"
    assert keys["eiger_detector_description"]["dtype_numpy"] == "<U0"
    assert keys["eiger_detector_detector_translation"]["shape"] == [3]
    assert keys["eiger_detector_detector_translation"]["dtype_numpy"] == "<f8"


def test_what_only_the_other_generation_has(case: Case) -> None:
    """Left out of the configuration; one message on use."""
    other = next(model for model in VERSIONS if model != case.model)
    missing = served(other) - served(case.model)
    assert len(missing) >= 12
    read = case.eiger.read_configuration().keys()
    for resource in missing:
        signal = case.signal(resource)
        if isinstance(signal, EigerCommand):
            with pytest.raises(LookupError, match=rf"^{signal.name}: this DCU .* does not serve"):
                signal.set(1).wait(10)
            continue
        assert signal.name not in read
        assert "not served" in repr(signal) or isinstance(signal, EigerArray)
    key = {"eiger-16m": "threshold/2/energy", "eiger2-16m": "frame_period"}[case.model]
    signal = case.signal(f"detector/config/{key}")
    message = (
        rf"^{signal.name}: this DCU \(API {VERSIONS[case.model]}\) does not serve "
        rf"detector/config/{key} \(GET http\S+: the DCU answered 404"
    )
    for use in (signal.get, lambda: signal.set(1).wait(10), lambda: signal.trigger().wait(10)):
        with pytest.raises(LookupError, match=message):
            use()
