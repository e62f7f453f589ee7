"""`set`: what is checked, put in which order, read back, and refused."""

import numpy as np
import pytest

GENERATIONS_BY_TURNS = True


def outcomes(document):
    return {entry["name"]: entry["outcome"] for entry in document["settings"]}


def test_it_is_put_read_back_and_what_follows_is_told(either, run):
    said = run("set", either.url, "threshold_energy=6000", "photon_energy=12400", "--json")
    assert said.status == 0
    document = said.json
    # The energy first, which would put the threshold to its half.
    names = [entry["name"] for entry in document["settings"]]
    assert names.index("detector.photon_energy") < names.index("detector.threshold_energy")
    assert either.get("detector/config/photon_energy") == 12400
    assert either.get("detector/config/threshold_energy") == 6000
    told = outcomes(document)
    assert told["detector.photon_energy"] == told["detector.threshold_energy"] == "put"
    assert told["detector.wavelength"] == told["detector.element"] == "changed by itself"


def test_what_is_so_already_is_not_put_again(dcu, run):
    assert outcomes(run("set", dcu.url, "nimages=5", "--json").json) == {"detector.nimages": "put"}
    again = run("set", dcu.url, "nimages=5", "ntrigger=2")
    assert again.status == 0
    rows = {line.split()[0]: line.split()[-1] for line in again.out.splitlines()}
    assert rows == {"setting": "outcome", "nimages": "skipped", "ntrigger": "put"}


def test_what_the_detector_does_not_take_as_asked_is_told(dcu, run):
    said = run("set", dcu.url, "count_time=0.1", "frame_time=0.1")
    assert "not as asked: detector.count_time" in said.err
    assert dcu.get("detector/config/count_time") < dcu.get("detector/config/frame_time")
    assert dcu.get("detector/config/frame_time") == pytest.approx(0.1)


def test_types_are_those_of_the_detector(dcu2, run):
    said = run(
        *("set", dcu2.url, "sample_name=42", "auto_summation=off", "omega_axis=[0, 1, 0]"),
        *("filewriter.mode=enabled", "nimages_per_file=7"),
    )
    assert said.status == 0, said.err
    assert dcu2.get("detector/config/sample_name") == "42"
    assert dcu2.get("detector/config/auto_summation") is False
    assert dcu2.get("detector/config/omega_axis") == [0, 1, 0]
    assert dcu2.get("filewriter/config/mode") == "enabled"
    assert dcu2.get("filewriter/config/nimages_per_file") == 7


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("count_time=4000", "1800.0] s reported by the detector"),
        ("trigger_mode=now", "not one of ints, exts, inte, exte"),
        ("description=mine", "can only be read"),
        ("nimages=1.5", "not a whole number"),
        ("nimages=many", "'many' is not a whole number"),
        ("auto_summation=perhaps", "not true or false"),
        ("photon_energi=9000", "did you mean photon_energy?"),
        ("state=idle", "no setting named 'state'"),
        ("pixel_mask=@nowhere.npy", "no array"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_nothing_is_put_where_one_is_wrong(shared, run, assignment, words, dry):
    said = run("set", shared.url, "ntrigger=9", assignment, *dry)
    assert said.status == 1
    assert words in said.err
    assert shared.get("detector/config/ntrigger") == 1


@pytest.mark.parametrize("assignments", [["nimages"], ["=5"], [], ["nimages=1", "nimages=2"]])
def test_wrong_usage(shared, run, assignments):
    assert run("set", shared.url, *assignments).status == 2


def test_a_dry_run_puts_nothing(dcu, run):
    said = run("set", dcu.url, "ntrigger=9", "nimages=1", "--dry-run", "--json")
    assert outcomes(said.json) == {"nimages": "skipped", "ntrigger": "would be put"}
    assert said.json["dry_run"] is True
    assert dcu.get("detector/config/ntrigger") == 1


def test_an_armed_detector_keeps_its_settings(either, run):
    either.put("detector/command/arm")
    refused = run("set", either.url, "nimages=5")
    assert refused.status == 1
    assert "'ready'" in refused.err
    assert f"ophyd-eiger abort {either.url}" in refused.err
    # The monitor is nobody's series.
    assert run("set", either.url, "monitor.buffer_size=7").status == 0
    assert either.get("monitor/config/buffer_size") == 7
    assert run("set", either.url, "nimages=5", "--dry-run").status == 0
    forced = run("set", either.url, "nimages=5", "--force")
    # The simulated detector refuses it itself, as its own words say.
    assert forced.status == 1
    assert "cannot be put in state ready" in forced.err
    assert either.get("detector/status/state") == "ready"


def test_a_detector_without_settings(asleep, run):
    said = run("set", asleep.url, "nimages=5", "--json")
    assert said.status == 1
    assert f"ophyd-eiger initialize {asleep.url}" in said.json["error"]["message"]
    assert said.json["error"]["kind"] == "StateError"


def test_a_mask_from_a_file(dcu, run, tmp_path):
    before = dcu.get("detector/config/number_of_excluded_pixels")
    run("get", dcu.url, "pixel_mask", "--output", tmp_path / "mask.npy")
    mask = np.load(tmp_path / "mask.npy")
    free = np.argwhere(mask == 0)[0]
    mask[tuple(free)] = 2
    np.save(tmp_path / "mine.npy", mask)
    said = run("set", dcu.url, f"pixel_mask=@{tmp_path / 'mine.npy'}")
    assert said.status == 0, said.err
    assert dcu.get("detector/config/number_of_excluded_pixels") == before + 1
    np.save(tmp_path / "small.npy", mask[:5])
    for dry in ([], ["--dry-run"]):
        small = run("set", dcu.url, f"pixel_mask=@{tmp_path / 'small.npy'}", *dry)
        assert small.status == 1
        assert "(514, 1030)" in small.err
    np.savez(tmp_path / "several.npz", mask, mask)
    for dry in ([], ["--dry-run", "--json"]):
        several = run("set", dcu.url, f"pixel_mask=@{tmp_path / 'several.npz'}", *dry)
        assert several.status == 1
        assert "give @FILE.npy" in several.err
