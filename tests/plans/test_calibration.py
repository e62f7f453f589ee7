"""Plans of calibration: what was planted is found, what was set is put back, and nothing is lost.

Expected values are the simulator's planted response, mask and beam, and plain formulas.
"""

import base64
import errno
import math
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import bluesky.plan_stubs as bps
import eiger_plans
import numpy as np
import pytest
import requests
from acceptance_runs import VERSIONS, detector, settings
from bluesky.simulators import check_limits, summarize_plan
from bluesky.utils import RunEngineInterrupted
from eiger_plans import dark, energy_scan, flatfield, series, threshold_scan, update_pixel_mask
from eiger_plans.counts import PixelCounts, TooFewCountsError
from eiger_plans.dark import Dark
from eiger_plans.flatfield import Flatfield
from eiger_plans.s_curve import SCurve
from eiger_plans.steps import PlanError
from eiger_plans.threshold_scan import ThresholdScan
from eiger_plans.thresholds import OtherThresholdError, flatfield_kept
from ophyd import Signal
from ophyd.sim import SynAxis
from PIL import Image

import sim_dcu
from ophyd_eiger import EigerDetector, FilePolicy, Timeouts, open_series
from ophyd_eiger.errors import TransferError
from sim_dcu.beam import Beam

# Of each test's cases the short run takes every 3rd, see conftest.
SHORT_RUN_EVERY = 3

GENERATIONS_BY_TURNS = True
MODELS = ("eiger-500k", "eiger2-500k")


@pytest.fixture(params=MODELS)
def model(request):
    return request.param


@pytest.fixture
def dcu(model):
    with sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as server:
        yield server


@pytest.fixture
def eiger(dcu, tmp_path):
    with detector(dcu, tmp_path, timeouts=Timeouts()) as device:
        device.connect()
        yield device


@pytest.fixture
def shutter(dcu):
    """A shutter in front of a flat field of 10,000 photons a second."""
    signal = Signal(name="shutter", value="close")

    def moved(value, **_):
        dcu.set_beam(Beam("flat", 1000.0 if value == "open" else 0.0))

    signal.subscribe(moved)
    return signal


def array(dcu, model, key):
    """Return a flat field or mask, asked by plain HTTP."""
    version = VERSIONS[model.partition("-")[0]]
    path = f"{dcu.url}/detector/api/{version}/config/{key}"
    reply = requests.get(path, timeout=20).json()["value"]
    data = np.frombuffer(base64.b64decode(reply["data"]), reply["type"])
    return data.reshape(reply["shape"])


def masters(tmp_path):
    return sorted((tmp_path / "data").glob("*_master.h5"), key=lambda path: path.stat().st_mtime)


# ---- dark ----


def test_dark_finds_the_pixels_that_count_without_light(
    dcu, model, eiger, engine, tmp_path, shutter, capsys
):
    before = settings(dcu, model)
    shutter.put("open")
    result = engine(dark(eiger, 10.0, 10, shutter=shutter)).plan_result
    assert shutter.get() == "close"
    planted = dcu.planted(1).pixel_mask
    factory = array(dcu, model, "pixel_mask")
    expected = np.where((factory == 0) & ((planted == 8) | (planted == 16)), planted, 0)
    assert np.count_nonzero(expected) >= 5
    assert np.array_equal(result.loud, expected)
    assert result.rate == 0
    (master,) = masters(tmp_path)
    with open_series(master) as series:
        assert len(series) == 10
        assert series.metadata.count_time == pytest.approx(10)
        for number in range(10):
            assert np.array_equal(series[number], dcu.image(1, number + 1))
    assert settings(dcu, model) == before
    printed = capsys.readouterr().out
    assert f"run {result.uid}" in printed
    y, x = np.argwhere(expected == 8)[0]
    assert f"pixel x = {x}, y = {y}:" in printed


def test_a_dark_of_a_device_that_waits_for_no_files(dcu, model, eiger, engine):
    eiger.file_policy = FilePolicy(wait=False)
    # The first file comes late: the run is over before.
    dcu.faults.set("file-late:seconds=1,times=1")
    result = engine(dark(eiger, 5.0, 3)).plan_result
    assert result.counts.images == 3


@pytest.mark.long
@pytest.mark.parametrize(("number", "missing"), [(1, "data_000001"), (0, "master")])
def test_a_dark_whose_files_do_not_come_says_which(dcu, model, eiger, engine, number, missing):
    eiger.file_policy = FilePolicy(wait=False)
    dcu.faults.set(f"file-missing:file={number}")
    with pytest.raises(TransferError, match=f"eiger_.*_1_{missing}.h5"):
        engine(dark(eiger, 5.0, 3))


def test_a_dark_that_is_not_is_doubted():
    shape = (8, 8)
    total = np.full(shape, 300.0)
    struck, full = np.full(shape, 3), np.zeros(shape, bool)
    counts = PixelCounts(3, 10.0, total, total**2, struck, full)
    told = str(Dark("uid", counts, np.nan, np.full((8, 8), 8, np.uint32)))
    assert "10 counts a second in the middle of these: is it dark?" in told


def test_a_dark_that_can_tell_nothing_is_refused(tmp_path):
    eiger = EigerDetector("http://127.0.0.1:9", name="eiger", directory=tmp_path)
    for arguments in ((10.0, 2), (0.5, 10, 1.0)):
        exposure, images, *rate = arguments
        kwargs = {"least_rate": rate[0]} if rate else {}
        with pytest.raises(TooFewCountsError, match="cannot tell it: take 3 images at least, and"):
            next(dark(eiger, exposure, images, **kwargs))
    eiger.destroy()


# ---- threshold_scan ----


@pytest.mark.parametrize("energy", [9300.0, pytest.param(12400.0, marks=pytest.mark.long)])
def test_threshold_scan_finds_the_beams_energy(dcu, model, eiger, engine, energy):
    dcu.set_beam(Beam("flat", 10.0, energy))
    eiger.detector.threshold_energy.set(4500).wait()
    before = settings(dcu, model)
    documents = []
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    thresholds = np.linspace(0.4 * energy, 1.35 * energy, 12).tolist()
    result = engine(threshold_scan(eiger, thresholds)).plan_result
    assert result.curve.energy == pytest.approx(energy, rel=0.02)
    # Of the simulator's charge spectrum.
    assert result.curve.width == pytest.approx(500, rel=0.1)
    assert result.curve.sharing == pytest.approx(0.25, abs=0.05)
    events = [doc["data"] for name, doc in documents if name == "event"]
    scanned = [data["eiger_detector_threshold_energy"] for data in events]
    assert scanned == pytest.approx(thresholds, rel=1e-6)
    assert {data["eiger_detector_photon_energy"] for data in events} == {result.photon_energy}
    # It is the counts of the oracle's images that were fitted.
    assert [data["eiger_series_id"] for data in events] == list(range(1, len(thresholds) + 1))
    first = dcu.image(1, 1)
    good = array(dcu, model, "pixel_mask") == 0
    assert result.curve.counts[0] == first[good].sum(dtype=float)
    assert settings(dcu, model) == before
    off = result.curve.energy - result.photon_energy
    assert f"{100 * off / result.photon_energy:.3g} %) above the detector's" in str(result)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (0.0123, ("energy 9300.457 +- 0.012 eV", "1252.677 eV (15.6 %) above the detector's")),
        (0.26, ("energy 9300.46 +- 0.26 eV", "1252.68 eV (15.6 %) above")),
        (34.0, ("energy 9300 +- 34 eV", "1253 eV (15.6 %) above")),
        (2000.0, ("energy 9300 +- 2000 eV", "no more than its error from the detector's")),
        (np.inf, ("energy 9300.5 +- inf eV", "no more than its error")),
    ],
)
def test_an_energy_has_the_digits_of_its_error(error, said):
    curve = SCurve(9300.4567, error, 500, 0.25, 1e6, 0, np.zeros(8), np.zeros(8))
    words = str(ThresholdScan("uid", curve, 8047.78, 0))
    assert all(part in words for part in said), words


@pytest.mark.long
def test_no_s_curve_is_no_energy(dcu, model, eiger, engine):
    before = settings(dcu, model)
    thresholds = np.linspace(4000, 9000, 8).tolist()
    dcu.set_beam(Beam("flat", 0.0))
    with pytest.raises(TooFewCountsError, match="is there beam"):
        engine(threshold_scan(eiger, thresholds))
    assert settings(dcu, model) == before


def test_a_fall_that_is_not_within_the_thresholds_is_no_s_curve():
    from eiger_plans.s_curve import fit_s_curve

    x = np.linspace(4000, 9000, 12)
    for energy in (16000, 9100, 3500):
        passing = [math.erfc((t - energy) / (500 * 2**0.5)) / 2 for t in x]
        mean = 1e6 * np.array(passing) * (1 + 0.25 * (1 - 2 * x / energy))
        with pytest.raises(TooFewCountsError, match="4000 to 9000 eV"):
            fit_s_curve(x, np.maximum(mean, 0))


def test_the_fit_alone_recovers_a_plain_formula():
    from eiger_plans.s_curve import fit_s_curve

    random = np.random.default_rng(1)
    x = np.linspace(4000, 13000, 25)
    for energy, width, sharing, background in ((8000, 300, 0.1, 0), (9500, 700, 0.4, 5e4)):
        passing = [math.erfc((t - energy) / (width * 2**0.5)) / 2 for t in x]
        mean = 1e6 * np.array(passing) * (1 + sharing * (1 - 2 * x / energy)) + background
        curve = fit_s_curve(x, random.poisson(mean))
        assert curve.energy == pytest.approx(energy, abs=6 * curve.energy_error + 1)
        assert 0 < curve.energy_error < 20
        assert curve.width == pytest.approx(width, rel=0.03)
        assert curve.sharing == pytest.approx(sharing, abs=0.02)
        assert curve.fitted == pytest.approx(mean, rel=0.02, abs=3000)


class Pauses:
    """Asks for a pause at once in the exposure of a point; its series then belongs to no event."""

    def __init__(self, engine, point):
        self.engine, self.left = engine, point
        engine.msg_hook = self

    def __call__(self, msg):
        if msg.command == "trigger":
            self.left -= 1
        elif msg.command == "wait" and self.left == 0:
            self.left = -1
            threading.Thread(target=self.engine.request_pause, args=(False,)).start()

    def resumed(self, plan):
        """Run a plan that is paused and resumed; return its result."""
        with pytest.raises(RunEngineInterrupted):
            self.engine(plan)
        assert self.engine.state == "paused"
        return self.engine.resume().plan_result


@pytest.mark.parametrize(
    ("point", "wait"),
    [
        pytest.param(1, False, marks=pytest.mark.long),
        pytest.param(1, True, marks=pytest.mark.long),
        pytest.param(4, False, marks=pytest.mark.long),
        pytest.param(4, True, marks=pytest.mark.long),
    ],
)
def test_a_threshold_scan_that_was_paused_finds_the_energy(dcu, eiger, engine, point, wait):
    dcu.set_beam(Beam("flat", 200.0))
    eiger.file_policy = FilePolicy(wait=wait)
    thresholds = np.linspace(2800, 12000, 9)
    result = Pauses(engine, point).resumed(threshold_scan(eiger, list(thresholds), 0.5, 3))
    assert len(eiger.series_named) == 9
    assert len([file for file in eiger.fetched if file.path.name.endswith("_master.h5")]) >= 9
    assert result.curve.energy == pytest.approx(8047.78, rel=0.02)
    # Each threshold has its own counts: what is expected of them, by the simulator's formula.
    passing = np.array([math.erfc((t - 8047.78) / (500 * 2**0.5)) / 2 for t in thresholds])
    expected = passing * (1 + 0.25 * (1 - 2 * thresholds / 8047.78))
    assert result.curve.counts / result.curve.counts[1] == pytest.approx(
        expected / expected[1], abs=0.005
    )


def test_a_dark_that_was_paused_is_of_the_series_that_was_whole(dcu, eiger, engine):
    result = Pauses(engine, 1).resumed(dark(eiger, 10.0, 4))
    (named,) = eiger.series_named
    number = int(named.rpartition("_")[2])
    assert number >= 2
    assert result.counts.images == 4


def test_files_of_a_point_that_do_not_come_are_told_whatever_came_of_others(dcu, tmp_path, engine):
    with detector(dcu, tmp_path, timeouts=Timeouts(files=1)) as eiger:
        eiger.file_policy = FilePolicy(wait=False)
        Pauses(engine, 1)
        with pytest.raises(RunEngineInterrupted):
            engine(dark(eiger, 10.0, 4))
        dcu.faults.set("refuse", status=503, path="GET data/*_2_*")
        with pytest.raises(TransferError, match=r"_2_\S+ did not come home"):
            engine.resume()


# ---- energy_scan ----


def test_energy_scan_takes_a_series_at_each_energy(dcu, model, eiger, engine, tmp_path, capsys):
    eiger.detector.photon_energy.set(9000).wait()
    eiger.detector.threshold_energy.set(5000).wait()
    before = settings(dcu, model)
    energies = [7000.0, 9000.0, 12400.0]
    mono = SynAxis(name="mono")
    documents = []
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    engine(energy_scan(eiger, energies, 0.5, 2, threshold=0.6, monochromator=mono))
    events = [doc["data"] for name, doc in documents if name == "event"]
    assert [data["eiger_detector_photon_energy"] for data in events] == pytest.approx(energies)
    assert [data["mono"] for data in events] == energies
    thresholds = [data["eiger_detector_threshold_energy"] for data in events]
    assert thresholds == pytest.approx([0.6 * energy for energy in energies])
    assert {data["eiger_detector_count_time"] for data in events} == {0.5}
    series_ids = [data["eiger_series_id"] for data in events]
    for series_id, master, energy in zip(series_ids, masters(tmp_path), energies, strict=True):
        with open_series(master) as series:
            assert series.metadata.photon_energy == pytest.approx(energy)
            assert np.array_equal(series[:], [dcu.image(series_id, n) for n in (1, 2)])
    assert settings(dcu, model) == before
    said = capsys.readouterr().out
    assert said.startswith(f"run {documents[0][1]['uid']}\n")
    assert all(f"  {master}  " in said for master in masters(tmp_path))


@pytest.mark.parametrize("model", ["eiger2-500k"])
def test_energy_scan_puts_back_what_energies_change_beside(dcu, model, eiger, engine):
    eiger.detector.element.set("Cu").wait()
    eiger.detector.threshold_2_energy.set(6500).wait()
    before = settings(dcu, model)
    engine(energy_scan(eiger, [9000.0, 12000.0], 0.05))
    assert settings(dcu, model) == before


def test_a_point_of_several_triggers_is_one_of_other_scans(dcu, model, eiger, engine):
    eiger.triggers_per_point.set(3).wait()
    for plan in (series(eiger, 0.05, 2), energy_scan(eiger, [9000.0], 0.05)):
        engine(plan)
        assert eiger.triggers_per_point.get() == 3
        assert sum(file.images for file in eiger.fetched) > 0


@pytest.mark.parametrize("plan", ["flatfield", "update_pixel_mask"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    dcu, model, eiger, engine, plan
):
    documents = []
    engine.subscribe(lambda name, doc: documents.append(doc))
    with pytest.raises(PlanError, match="/proc/nowhere: no files can be written there"):
        engine(
            {"flatfield": flatfield, "update_pixel_mask": update_pixel_mask}[plan](
                eiger,
                **({"look": "dark"} if plan == "update_pixel_mask" else {}),
                folder="/proc/nowhere",
            )
        )
    assert documents == []


def test_a_mask_without_its_picture(
    dcu, model, eiger, engine, shutter, monkeypatch, capsys, caplog
):
    """The disk is full when it is saved: the mask is put, and told of."""
    monkeypatch.setattr("eiger_plans.pixel_mask.draw", _no_room)
    result = engine(update_pixel_mask(eiger, look="dark", shutter=shutter)).plan_result
    assert np.array_equal(array(dcu, model, "pixel_mask"), result.mask)
    assert result.picture is None
    assert str(result.old) in capsys.readouterr().out
    assert "no picture of its mask: " in caplog.text


def _no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---- flatfield ----


def test_flatfield_is_the_planted_response(dcu, model, eiger, engine, shutter, capsys):
    factory = array(dcu, model, "flatfield")
    before = settings(dcu, model)
    result = engine(flatfield(eiger, 100.0, 2, shutter=shutter)).plan_result
    planted = dcu.planted(1)
    good = planted.pixel_mask == 0
    corrected = (result.factors * planted.response)[good]
    # 2 images of a million photons.
    assert result.counts == pytest.approx(2e6, rel=0.01)
    left = corrected.std() / corrected.mean()
    assert left < 1.5 / math.sqrt(2e6)
    # The response that was planted differs by more than what is left of it.
    response = planted.response[good]
    assert response.std() / response.mean() > 2 * left
    # Put, and read back; masked and bad pixels keep 1, and so does what is dead or half dead.
    put = array(dcu, model, "flatfield")
    assert np.array_equal(put, result.factors)
    unmasked_bad = (planted.pixel_mask != 0) & (array(dcu, model, "pixel_mask") == 0)
    dead = unmasked_bad & (planted.pixel_mask == 2)
    assert (put[dead] == 1).all()
    assert (put[array(dcu, model, "pixel_mask") != 0] == 1).all()
    assert result.left_out >= np.count_nonzero(dead) > 0
    assert np.array_equal(np.load(result.old), factory)
    assert settings(dcu, model) == before
    printed = capsys.readouterr().out
    assert str(result.old) in printed
    # The factory's is good to 0.05 %, this one to 0.07 %.
    assert "no better than the one of before" in printed
    eiger.detector.flatfield.set(np.load(result.old)).wait()
    assert np.array_equal(array(dcu, model, "flatfield"), factory)


def test_a_flat_field_that_is_better_is_not_doubted():
    made = Flatfield("uid", np.ones((2, 2), np.float32), 2e4, 0.007, 0.05, 0.011, 0, 0.001)
    assert "20,000 counts a pixel, so factors are good to 0.70%" in str(made)
    assert "0 bad pixels that are not masked keep the factor 1" in str(made)
    assert "no better" not in str(made)
    assert "no better" in str(replace(made, spread_before=0.009))


def test_a_flatfield_of_too_few_counts_is_not_put(dcu, model, eiger, engine, shutter, tmp_path):
    factory = array(dcu, model, "flatfield")
    before = settings(dcu, model)
    # 2,000 photons of the 10,000 that 1 % takes.
    with pytest.raises(
        TooFewCountsError, match=r"median of 10,000 counts: 5\.?\d* times as long, as 1\d"
    ):
        engine(flatfield(eiger, 0.1, 2, shutter=shutter))
    shutter.put("close")
    with pytest.raises(TooFewCountsError, match=r"median is 0 counts .* is the shutter open"):
        engine(flatfield(eiger, 0.1, 2))
    assert np.array_equal(array(dcu, model, "flatfield"), factory)
    assert settings(dcu, model) == before
    assert list((tmp_path / "data").glob("*.npy")) == []


# ---- update_pixel_mask ----


def test_the_mask_is_what_was_planted(dcu, model, eiger, engine, shutter, tmp_path, capsys):
    factory = array(dcu, model, "pixel_mask")
    before = settings(dcu, model)
    folder = tmp_path / "masks"
    result = engine(update_pixel_mask(eiger, shutter=shutter, folder=str(folder))).plan_result
    planted = dcu.planted(1).pixel_mask
    assert np.count_nonzero(planted) > np.count_nonzero(factory)
    # All planted bad pixels, no good one, and each of its kind.
    assert np.array_equal(array(dcu, model, "pixel_mask"), planted)
    assert np.array_equal(result.mask, planted)
    assert np.array_equal(result.added, np.where(factory == 0, planted, 0))
    assert np.array_equal(np.load(result.old), factory)
    after = settings(dcu, model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {
        "detector/number_of_excluded_pixels",
        "detector/threshold/1/number_of_excluded_pixels",
        "detector/threshold/2/number_of_excluded_pixels",
    }
    assert after["detector/number_of_excluded_pixels"] == np.count_nonzero(planted)
    assert shutter.get() == "close"
    with Image.open(result.picture) as picture:
        assert min(picture.size) > 300
    assert sorted(path.suffix for path in folder.iterdir()) == [".npy", ".png"]
    assert f"{np.count_nonzero(result.added)} bad pixels that were not" in capsys.readouterr().out


# Good pixels that somebody masked, with their bits: the last is in no reference.
MASKED_BY_HAND = {(100, 200): 2, (100, 210): 4, (100, 220): 8, (100, 230): 16, (100, 240): 32}


def masked_by_hand(dcu, model, eiger):
    """Mask these and a pixel that is said to be a gap; return the mask."""
    mask = array(dcu, model, "pixel_mask").copy()
    for place, bit in MASKED_BY_HAND.items():
        assert mask[place] == 0
        mask[place] = bit
    mask[0, 0] = 1
    eiger.detector.pixel_mask.set(mask).wait()
    return mask


# What a light forgets, because no other finds it.
LIGHTS = [("dark", (16,)), ("flat", (2, 4)), ("both", (2, 4, 8, 16))]


@pytest.mark.parametrize(("look", "forgotten"), LIGHTS)
def test_a_fresh_mask_forgets_what_only_its_light_finds(
    dcu, model, eiger, engine, shutter, capsys, look, forgotten
):
    mask = masked_by_hand(dcu, model, eiger)
    kwargs = {"look": look, "picture": False, "shutter": shutter}
    # One light leaves what only the other finds, of the factory's pixels too.
    result = engine(update_pixel_mask(eiger, fresh=True, **kwargs)).plan_result
    put = array(dcu, model, "pixel_mask")
    planted = dcu.planted(1).pixel_mask.copy()
    planted[0, 0] |= 1
    for place, bit in MASKED_BY_HAND.items():
        assert planted[place] == 0
        assert put[place] == (0 if bit in forgotten else bit)
        assert result.removed[place] == (bit if bit in forgotten else 0)
        planted[place] = put[place]
    assert np.count_nonzero(result.removed) == len(forgotten)
    assert ((put != 0) >= (mask != 0))[result.removed == 0].all()
    assert put[0, 0] == 1
    assert np.array_equal(np.load(result.old), mask)
    assert f"{len(forgotten)} masked pixels count as they should" in capsys.readouterr().out
    if look == "both":
        assert np.array_equal(put != 0, planted != 0)


def test_a_mask_keeps_all_of_the_old_one_and_forgets_no_more_than_it_may(
    dcu, model, eiger, engine, shutter
):
    mask = masked_by_hand(dcu, model, eiger)
    kwargs = {"look": "dark", "picture": False, "shutter": shutter}
    old = engine(update_pixel_mask(eiger, upload=False, **kwargs)).plan_result
    assert old.old is None
    assert all(old.mask[place] == bit for place, bit in MASKED_BY_HAND.items())
    assert np.count_nonzero(old.removed) == 0
    mask[200:225, 200:225] = 16
    eiger.detector.pixel_mask.set(mask).wait()
    with pytest.raises(TooFewCountsError, match=r"626 pixels \(0\.1%\) would be unmasked, more"):
        engine(update_pixel_mask(eiger, fresh=True, **kwargs))
    assert np.array_equal(array(dcu, model, "pixel_mask"), mask)


@pytest.mark.long
def test_light_that_is_not_flat_masks_nothing(dcu, model, eiger, engine, tmp_path):
    factory = array(dcu, model, "pixel_mask")
    before = settings(dcu, model)
    kwargs = {"look": "flat", "images": 2, "picture": False}
    # A few photons a pixel.
    dcu.set_beam(Beam("flat", 1.0))
    with pytest.raises(TooFewCountsError, match=r"to tell 30% from that .* times as long"):
        engine(update_pixel_mask(eiger, **kwargs))
    dcu.set_beam(Beam("flat", 0.0))
    with pytest.raises(TooFewCountsError, match="is the shutter open"):
        engine(update_pixel_mask(eiger, **kwargs))
    dcu.set_beam(Beam("flat", 1000.0))
    with pytest.raises(TooFewCountsError, match=r"more than 0\.0%: is the light flat"):
        engine(update_pixel_mask(eiger, most=1e-6, **kwargs))
    assert np.array_equal(array(dcu, model, "pixel_mask"), factory)
    assert settings(dcu, model) == before
    assert list((tmp_path / "data").glob("*.npy")) == []


@pytest.mark.long
@pytest.mark.parametrize("size", ["eiger-1m", "eiger2-4m"])
@pytest.mark.timeout(300)
def test_the_mask_of_larger_detectors_with_gaps(size, engine, tmp_path):
    with (
        sim_dcu.serve(size, time_scale=0, seed=7, initialized=True) as server,
        detector(server, tmp_path, timeouts=Timeouts()) as eiger,
    ):
        signal = Signal(name="shutter", value="close")
        signal.subscribe(
            lambda value, **_: server.set_beam(Beam("flat", 1000.0 * (value == "open")))
        )
        result = engine(update_pixel_mask(eiger, shutter=signal)).plan_result
        planted = server.planted(1).pixel_mask
        assert np.array_equal(result.mask != 0, planted != 0)
        assert np.array_equal(array(server, size, "pixel_mask"), result.mask)


# ---- thresholds, and a flat field of one's own ----


@pytest.mark.parametrize("model", ["eiger2-500k"])
@pytest.mark.parametrize(("mode", "value"), [("1", "disabled"), ("2", "enabled")])
def test_another_threshold_than_the_first_is_refused(dcu, model, eiger, engine, mode, value):
    eiger.detector.threshold_2_mode.set("enabled").wait()
    getattr(eiger.detector, f"threshold_{mode}_mode").set(value).wait()
    before = settings(dcu, model)
    for name in ("energy_scan", "flatfield", "threshold_scan", "update_pixel_mask"):
        with pytest.raises(
            OtherThresholdError, match="are those of threshold 1: enable it, disable the"
        ):
            engine(PLANS[name](eiger))
    assert settings(dcu, model) == before


def test_a_flat_field_of_ones_own_outlives_scans(
    dcu, model, eiger, engine, tmp_path, capsys, caplog
):
    def kept():
        return sorted((tmp_path / "data").glob("*.npy"))

    engine(energy_scan(eiger, [7000, 9000]))
    assert kept() == []
    own = array(dcu, model, "flatfield") * np.float32(1.25)
    eiger.detector.flatfield.set(own).wait()
    engine(energy_scan(eiger, [7000, 9000]))
    assert np.array_equal(array(dcu, model, "flatfield"), own)
    (file,) = kept()
    assert np.array_equal(np.load(file), own)
    assert str(file) in capsys.readouterr().out

    # Nor one that is halted, though nobody is left to put it back.
    def halted():
        yield from bps.checkpoint()
        yield from bps.mv(eiger.detector.threshold_energy, 6000)
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        engine(flatfield_kept(eiger, tmp_path / "data", halted()))
    engine.halt()
    assert f"the flat field of eiger, which is in {kept()[-1]}" in caplog.text
    eiger.detector.flatfield.set(np.load(kept()[-1])).wait()
    # A scan that fails loses it no more than another.
    dcu.set_beam(Beam("flat", 0.0))
    with pytest.raises(TooFewCountsError, match="is there beam"):
        engine(PLANS["threshold_scan"](eiger))
    assert np.array_equal(array(dcu, model, "flatfield"), own)
    assert len(kept()) == 3


# ---- all of them ----

PLANS = {
    "dark": lambda eiger: dark(eiger),
    "energy_scan": lambda eiger: energy_scan(eiger, [8000, 9000]),
    "flatfield": lambda eiger: flatfield(eiger),
    "threshold_scan": lambda eiger: threshold_scan(eiger, [5000 + 500 * n for n in range(9)]),
    "update_pixel_mask": lambda eiger: update_pixel_mask(eiger, look="dark"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_can_be_listed_without_a_detector(name, tmp_path, capsys):
    eiger = EigerDetector("http://127.0.0.1:9", name="eiger", directory=tmp_path)
    summarize_plan(PLANS[name](eiger))
    printed = capsys.readouterr().out
    assert printed.count("Open Run") == 1
    assert list(tmp_path.iterdir()) == []
    eiger.destroy()


def test_limits_can_be_checked_and_nothing_is_set(dcu, model, eiger, engine):
    before = settings(dcu, model)
    for plan in PLANS.values():
        check_limits(plan(eiger))
    if model == "eiger-500k":  # an EIGER2 states no limits of energies
        with pytest.raises(ValueError, match=r"1800\.0"):
            check_limits(dark(eiger, 2000))
    assert settings(dcu, model) == before


NONE = {
    "exposure is 0": lambda eiger: dark(eiger, 0),
    "images is 1.5": lambda eiger: flatfield(eiger, 1, 1.5),
    "precision is -1": lambda eiger: flatfield(eiger, precision=-1),
    "an S-curve takes 8 different ones": lambda eiger: threshold_scan(eiger, [5000] * 9),
    "energies are \\[\\]": lambda eiger: energy_scan(eiger, []),
    "threshold is 1.2": lambda eiger: energy_scan(eiger, [8000], threshold=1.2),
    "look is 'light'": lambda eiger: update_pixel_mask(eiger, look="light"),
    "takes a shutter": lambda eiger: update_pixel_mask(eiger),
    "1 is between them": lambda eiger: update_pixel_mask(eiger, look="flat", low=1.1),
    "is a file, not a folder": lambda eiger: flatfield(eiger, folder=__file__),
}


@pytest.mark.parametrize("words", NONE)
def test_what_makes_no_sense_is_refused_before_the_first_message(words, tmp_path):
    eiger = EigerDetector("http://127.0.0.1:9", name="eiger", directory=tmp_path)
    with pytest.raises((ValueError, TypeError), match=words):
        next(NONE[words](eiger))
    eiger.destroy()


def test_the_examples_of_the_readme_are_calls_of_every_plan(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    calls = re.findall(r"^\| `((\w+)\(eiger.*\))` \|", readme, re.MULTILINE)
    assert {name for _, name in calls} == {*PLANS, "acceptance_test"}
    eiger = EigerDetector("http://127.0.0.1:9", name="eiger", directory=tmp_path)
    names = {**vars(eiger_plans), "eiger": eiger, "shutter": Signal(name="shutter")}
    for call, _ in calls:
        # Its arguments are checked before its first message.
        plan = eval(call, names)
        next(plan)
        plan.close()
    eiger.destroy()


def test_limits_of_the_detector_are_looked_at_before_the_first_message(tmp_path):
    with (
        sim_dcu.serve("eiger-500k", time_scale=0, initialized=True) as server,
        detector(server, tmp_path) as eiger,
    ):
        eiger.connect()
        for plan in (
            energy_scan(eiger, [8000, 40000]),
            energy_scan(eiger, [5000], threshold=0.3),
            threshold_scan(eiger, [2000 + 500 * n for n in range(9)]),
        ):
            with pytest.raises(ValueError, match="reported by the detector"):
                next(plan)
