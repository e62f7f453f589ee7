"""`exposure_series`: an image for each exposure, and the settings as before."""

import numpy as np
import pytest
from bluesky.simulators import check_limits, summarize_plan
from eiger_plans import exposure_series

from ophyd_eiger import EigerDetector
from ophyd_eiger.signals import LimitError
from sim_dcu.beam import Beam


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"exposures": [0.01, 0.2, 0.03]}, [0.01, 0.2, 0.03]),
        # Each ten times the one before.
        ({"shortest": 0.001, "longest": 1.0, "number": 4}, [0.001, 0.01, 0.1, 1.0]),
    ],
)
def test_each_event_has_its_exposure(
    RE, documents, images_of, dcu, eiger, commands, given, expected, capsys
):
    eiger.configure({"nimages": 3, "ntrigger": 2})
    commands.clear()
    (uid,) = RE(exposure_series(eiger, **given, md={"sample": "Si"}))
    found, ids = images_of(uid)
    assert np.array_equal(found, [[dcu.image(ids[0], n + 1)] for n in range(len(expected))])
    events = [doc["data"] for name, doc in documents if name == "event"]
    assert np.allclose([event["eiger_exposure"] for event in events], expected)
    assert commands().count("arm") == 1
    start = documents[0][1]
    assert (start["plan_name"], start["sample"]) == ("exposure_series", "Si")
    assert np.allclose(start["plan_args"]["exposures"], expected)
    assert start["num_points"] == len(expected)
    assert start["hints"]["dimensions"] == [(["eiger_exposure"], "primary")]
    assert f"run {uid}" in capsys.readouterr().out
    assert eiger.exposure.get() is None
    settings = (eiger.detector.trigger_mode, eiger.detector.nimages, eiger.detector.ntrigger)
    assert [signal.get() for signal in settings] == ["ints", 3, 2]
    assert eiger.detector.state.get() == "idle"


def test_images_have_the_bits_for_the_longest_exposure(RE, images_of, dcu, eiger):
    """10,000 counts a second for 10 s do not fit into the 16 bits of a short count_time."""
    dcu.set_beam(Beam("flat", 1000.0))
    eiger.configure({"frame_time": 0.01, "count_time": 0.008, "pixel_mask_applied": False})
    (uid,) = RE(exposure_series(eiger, [0.1, 10.0]))
    found, _ = images_of(uid)
    assert found.dtype == np.uint32
    assert [np.median(image) for image in found[:, 0]] == pytest.approx([1e3, 1e5], rel=0.01)
    times = (eiger.detector.count_time.get(), eiger.detector.frame_time.get())
    assert times == pytest.approx((0.008, 0.01), rel=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give the exposures as a list, or"),
        ({"exposures": []}, "an empty list"),
        ({"exposures": [0.1], "number": 3}, "not both"),
        ({"shortest": 0.1, "number": 3}, "not in part"),
        ({"shortest": 1.0, "longest": 0.1, "number": 3}, "from 1.0 s to 0.1 s"),
        ({"shortest": 0.1, "longest": 1.0, "number": 1}, "2 at least"),
        ({"exposures": [0.1, 1e9]}, "outside"),
        ({"exposures": [0.1, -1]}, "no exposure"),
    ],
)
def test_what_is_refused_before_the_first_message(quiet_eiger, given, said):
    with pytest.raises(ValueError, match=said):
        next(exposure_series(quiet_eiger, **given))


def test_without_a_run_engine(RE, eiger, capsys):
    summarize_plan(exposure_series(eiger, [0.1, 0.2]))
    printed = capsys.readouterr().out
    assert "eiger_exposure -> 0.1" in printed
    assert printed.count("Read ['eiger']") == 2
    assert "run None" not in printed
    check_limits(exposure_series(eiger, [0.1, 0.2]))


@pytest.mark.parametrize("wrong", [{"exposures": [0.01, 1e5]}, {"exposures": [1e-9]}])
def test_a_detector_that_was_never_asked_is_before_its_energy_is_put(
    RE, dcu, tmp_path, commands, wrong
):
    other = EigerDetector(dcu.url, name="other", directory=tmp_path)
    before = other.detector.photon_energy.get()
    other.destroy()
    other = EigerDetector(dcu.url, name="other", directory=tmp_path)
    with pytest.raises(LimitError, match="count_time"):
        RE(exposure_series(other, energy=12000, **wrong))
    assert other.detector.photon_energy.get() == before
    other.destroy()
