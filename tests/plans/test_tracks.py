"""`Track`: when a motor passes and where it was, by whatever clock; the time is made up."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from eiger_plans import tracks
from eiger_plans.sweeps import Sweep
from eiger_plans.tracks import Track
from ophyd.sim import SynAxis


@pytest.mark.parametrize("behind", [0.0, 0.1, 0.3, 7200.0, -0.3])
def test_a_motor_with_a_clock_of_its_own(monkeypatch, caplog, behind):
    now = 1000.0
    monkeypatch.setattr(
        tracks, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: 5e8 + now)
    )
    motor = SynAxis(name="omega")
    # 20 degree/s, reached after 0.2 s and 2 degree; 8 degree of run-up take 0.5 s.
    sweep = Sweep(0.0, 0.2, 50, 0.01, 0.2)
    track = Track(motor, images_an_event=1, watches=True)
    track.stage()
    track.prepare(sweep)
    passed = track.trigger()

    def tell(seconds, late=0.0):
        """Tell where it was so long after it set out, some time later."""
        nonlocal now
        now = 1000.0 + seconds + late
        place = -8.0 + 20.0 * (seconds - 0.1)
        told = {"value": place, "timestamp": 5e8 + 1000.0 + seconds - behind}
        motor._run_subs(sub_type=motor.SUB_READBACK, **told)

    tell(0.25)
    tell(0.32, late=0.06)
    assert not passed.done
    tell(0.5, late=0.01)
    passed.wait(timeout=20)
    for seconds in np.arange(0.6, 1.3, 0.1):
        tell(seconds, late=0.02)
    # Passed at 0.5 s, and noticed at 0.51 s.
    found = track.readbacks()
    assert np.allclose(found, 0.2 + 0.2 * np.arange(50), atol=1e-3)
    list(track.collect_pages())
    said = f"{abs(behind):.3f} s {'behind' if behind > 0 else 'ahead of'}"
    assert (said in caplog.text) is not math.isclose(behind, 0)
    track.unstage()


@pytest.mark.parametrize(
    ("late", "said"),
    [
        # In images of 0.2 degree and 10 ms; the motor goes backwards.
        ([0.5, -0.5, 0, math.nan], ""),
        (
            [1.25, 1.0, 1.2, math.nan],
            "image 1 began 12 ms late (1.2 images), at 4.75 instead of 5; all images are about as "
            "late",
        ),
        (
            [36.2, 36.0, 36.1, 36.4],
            "image 4 began 364 ms late (36 images), at -2.88 instead of 4.4; all images are about "
            "as late",
        ),
        (
            [0, -2, 1, 0],
            "image 2 began 20 ms early (2 images), at 5.2 instead of 4.8; the images are between "
            "20 ms early and 10 ms late",
        ),
    ],
)
def test_how_far_images_are_away(late, said):
    sweep = Sweep(5.0, -0.2, 4, 0.01, 0.2)
    found = np.array([5.0, 4.8, 4.6, 4.4]) - 0.2 * np.array(late)
    assert tracks._away(sweep, found) == said
