"""`snap`: one image, and its picture where it can be seen."""

import sys
import types

import matplotlib.image
import numpy as np
import pytest
from bluesky.simulators import check_limits, summarize_plan
from eiger_plans import snap

from ophyd_eiger import FilePolicy


@pytest.mark.parametrize("waits", [True, False])
def test_saved_where_there_is_no_screen(engine, dcu, eiger, tmp_path, waits, capsys):
    eiger.file_policy = FilePolicy(wait=waits)
    started = []
    engine.subscribe(lambda name, doc: started.append(doc), "start")
    found = engine(snap(eiger, 0.02, comment="beam on", md={"sample": "Si"})).plan_result
    assert len(found) == 1
    assert np.array_equal(found[0], dcu.image(1, 1))
    assert started[0]["plan_name"] == "snap"
    assert (started[0]["comment"], started[0]["sample"]) == ("beam on", "Si")
    (saved,) = (tmp_path / "data").glob("*_image.png")
    assert str(saved) in capsys.readouterr().out
    picture = matplotlib.image.imread(saved)
    assert picture.std() > 0.05
    assert eiger.detector.count_time.get() == pytest.approx(0.02)
    assert eiger.detector.state.get() == "idle"


def test_shown_in_a_notebook(engine, eiger, tmp_path, monkeypatch):
    import IPython.display

    shown = []
    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: kernel)
    monkeypatch.setattr(IPython.display, "display", shown.append)
    engine(snap(eiger, 0.02))
    (picture,) = shown
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert list((tmp_path / "data").glob("*.png")) == []


def test_what_the_detector_does_not_take(engine, eiger):
    with pytest.raises(ValueError, match="outside"):
        engine(snap(eiger, 4000.0))


def test_without_a_run_engine(RE, eiger, capsys):
    summarize_plan(snap(eiger, 0.1))
    printed = capsys.readouterr().out
    assert "eiger_detector_count_time -> 0.1" in printed
    assert "run None" not in printed
    check_limits(snap(eiger, 0.1))
