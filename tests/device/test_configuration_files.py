"""Configurations saved, restored and compared, in both generations."""

import json
from pathlib import Path

import bluesky.plan_stubs as bps
import pytest
import requests
from bluesky import RunEngine

import sim_dcu
from ophyd_eiger import EigerDetector
from ophyd_eiger.errors import ConfigurationFileError, StateError
from ophyd_eiger.settings import without_followers

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True

API = {"eiger-500k": "1.6.0", "eiger2-500k": "1.8.0"}
SETTINGS = {
    "photon_energy": 12400.0,
    "threshold_energy": 4500.0,
    "count_time": 0.05,
    "frame_time": 0.06,
    "nimages": 3,
    "ntrigger": 2,
    "beam_center_x": 512.5,
    "filewriter.nimages_per_file": 7,
    "monitor.mode": "enabled",
}


@pytest.fixture(scope="module")
def servers():
    with (
        sim_dcu.serve(model="eiger-500k", time_scale=0, seed=3, initialized=True) as first,
        sim_dcu.serve(model="eiger2-500k", time_scale=0, seed=3, initialized=True) as second,
    ):
        yield {"eiger-500k": first, "eiger2-500k": second}


@pytest.fixture
def connected(servers, tmp_path):
    devices = []

    def make(model):
        for subsystem in ("detector", "filewriter", "monitor"):
            url = f"{servers[model].url}/{subsystem}/api/{API[model]}/command/initialize"
            requests.put(url, timeout=10).raise_for_status()
        device = EigerDetector(servers[model].url, name="eiger", directory=tmp_path / "data")
        device.connect()
        devices.append(device)
        return device

    yield make
    for device in devices:
        device.destroy()


@pytest.fixture(params=API)
def eiger(request, connected):
    return connected(request.param)


def served(eiger):
    """Return every writable value but arrays and dates, asked by plain HTTP."""
    found = {}
    version = eiger.link.client.api_version
    for subsystem in ("detector", "filewriter", "monitor", "stream"):
        start = f"{eiger.address}/{subsystem}/api/{version}/config"
        for key in requests.get(f"{start}/keys", timeout=10).json():
            reply = requests.get(f"{start}/{key}", timeout=10).json()
            if "w" in reply["access_mode"] and not isinstance(reply["value"], dict):
                found[subsystem, key] = reply["value"]
    found.pop(("detector", "data_collection_date"), None)
    return found


def test_a_file_holds_every_setting_with_its_unit(eiger, tmp_path):
    eiger.configure(SETTINGS)
    path = eiger.save_configuration(tmp_path / "good.json")
    document = json.loads(path.read_text())
    saved = {
        (subsystem, key): entry["value"]
        for subsystem, entries in document["settings"].items()
        for key, entry in entries.items()
    }
    # An EIGER2 answers more than its own list has, wavelength among it.
    version = eiger.link.client.api_version
    for subsystem, key in saved.keys() - served(eiger).keys():
        unlisted = f"{eiger.address}/{subsystem}/api/{version}/config/{key}"
        reply = requests.get(unlisted, timeout=10).json()
        assert (reply["value"], reply["access_mode"]) == (saved[subsystem, key], "rw")
    assert {name: saved[name] for name in served(eiger)} == served(eiger)
    assert document["settings"]["detector"]["photon_energy"]["unit"] == "eV"
    assert document["api_version"] == eiger.link.client.api_version
    assert document["detector_number"] == eiger.detector.detector_number.get()
    assert document["software_version"] == eiger.detector.software_version.get()


def test_restored_after_initialize(eiger, tmp_path):
    eiger.configure(SETTINGS)
    path = eiger.save_configuration(tmp_path / "good.json")
    before = served(eiger)
    eiger.initialize()
    eiger.monitor.initialize.set(1).wait(10)
    assert served(eiger) != before
    report = eiger.restore_configuration(path)
    assert served(eiger) == before
    assert report.not_as_asked == []
    # The file writer was left alone.
    assert "filewriter.nimages_per_file" in report.skipped
    assert eiger.restore_configuration(path).put == []


def test_the_element_is_restored(eiger, tmp_path):
    eiger.configure({"element": "Zn", "threshold_energy": 5000.0})
    path = eiger.save_configuration(tmp_path / "good.json")
    before = served(eiger)
    assert before["detector", "element"] == "Zn"
    eiger.initialize()
    eiger.restore_configuration(path)
    assert served(eiger) == before


@pytest.mark.parametrize(
    ("element", "left"),
    [("Zn", {"element": "Zn"}), ("", {"photon_energy": 8638.86})],
)
def test_of_what_follows_from_each_other_one_is_restored(element, left):
    saved = {
        "element": element,
        "photon_energy": 8638.86,
        "incident_energy": 8638.86,
        "wavelength": 1.4352,
        "threshold_energy": 4000.0,
        "threshold/1/energy": 4000.0,
        "threshold/2/energy": 12000.0,
    }
    thresholds = {"threshold_energy": 4000.0, "threshold/2/energy": 12000.0}
    assert without_followers(saved) == {**left, **thresholds}
    entries = {key: {"value": value} for key, value in saved.items()}
    assert without_followers(entries).keys() == {*left, *thresholds}


def test_differences(eiger, tmp_path):
    eiger.configure(SETTINGS)
    path = eiger.save_configuration(tmp_path / "good.json")
    assert eiger.diff_configuration(path) == []
    eiger.configure({"nimages": 5, "monitor.mode": "disabled", "photon_energy": 12400.04})
    found = eiger.diff_configuration(path)
    assert [(d.name, d.here, d.there) for d in found] == [
        ("detector.nimages", 5, 3),
        ("monitor.mode", "disabled", "enabled"),
    ]
    assert repr(found).splitlines()[0].split() == ["setting", "here", "in", "the", "file", "unit"]
    (difference,) = eiger.diff_configuration({"count_time": 0.04, "nimages": 5})
    assert (difference.name, difference.there, difference.unit) == (
        "detector.count_time",
        0.04,
        "s",
    )


def test_another_models_file_is_refused_unless_told_otherwise(connected, tmp_path):
    first, second = connected("eiger-500k"), connected("eiger2-500k")
    first.configure({"count_time": 0.05, "frame_time": 0.06, "nimages": 3})
    path = first.save_configuration(tmp_path / "first.json")
    before = served(second)
    with pytest.raises(ConfigurationFileError, match=r"API 1\.6\.0.*API 1\.8\.0.*other_detector"):
        second.restore_configuration(path)
    assert served(second) == before
    second.restore_configuration(path, other_detector=True)
    assert served(second)["detector", "nimages"] == 3
    assert served(second)["detector", "count_time"] == pytest.approx(0.05)


def test_nothing_is_overwritten(eiger, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("mine")
    with pytest.raises(ConfigurationFileError, match="exists and is not overwritten"):
        eiger.save_configuration(path)
    assert path.read_text() == "mine"
    with pytest.raises(ConfigurationFileError, match="No such file or directory"):
        eiger.save_configuration(tmp_path / "nowhere" / "mine.json")


def test_a_full_disk_leaves_nothing(eiger, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigurationFileError, match="No space left on device"):
        eiger.save_configuration(tmp_path / "mine.json")
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "does not say that its format is"),
        ('{"format": "ophyd-eiger configuration", "format_version": 9}', "format_version 9"),
        (
            '{"format": "ophyd-eiger configuration", "format_version": 1, "settings": {"detector":'
            ' {"nimages": 3}}}',
            "is damaged",
        ),
    ],
)
def test_a_broken_file(connected, tmp_path, text, message):
    eiger = connected("eiger-500k")
    path = tmp_path / "broken.json"
    path.write_text(text)
    before = served(eiger)
    for use in (eiger.restore_configuration, eiger.diff_configuration):
        with pytest.raises(ConfigurationFileError, match=message):
            use(path)
        with pytest.raises(ConfigurationFileError, match="cannot be read: No such file"):
            use(Path(tmp_path / "gone.json"))
    assert served(eiger) == before


def test_not_while_staged_and_not_in_a_plan(connected, tmp_path):
    eiger = connected("eiger-500k")
    eiger.stage().wait(10)
    with pytest.raises(StateError, match="unstage it before saving"):
        eiger.save_configuration(tmp_path / "mine.json")
    eiger.unstage().wait(20)
    path = eiger.save_configuration(tmp_path / "mine.json")

    def plan():
        yield from bps.null()
        eiger.restore_configuration(path)

    with pytest.raises(StateError, match="before or after the plan"):
        RunEngine({})(plan())
