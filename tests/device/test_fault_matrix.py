"""Every fault of the simulator in every phase of a scan: nothing hangs, nothing is lost unsaid."""

import itertools
import threading
from urllib.parse import urlsplit

import pytest
from fault_cell import FAULTS, LONGEST, PHASES, POINTS, Scan, connections_to, left_over

import sim_dcu
from sim_dcu.fault_table import FAULTS as KNOWN

# Not over HTTP, and what it does depends on the file that is given.
LEFT_OUT = {"file-replaced"}
CELLS = list(itertools.product(FAULTS, PHASES, ("eiger-500k", "eiger2-500k"), ("step", "fly")))


def is_short(fault, phase, model, way):
    """Return whether the short run takes a cell: some of each fault and of each phase."""
    turn = list(FAULTS).index(fault) * 3 + PHASES.index(phase)
    return (
        (turn % 13 == 0)
        and model == ("eiger-500k", "eiger2-500k")[turn % 2]
        and way == ("step", "fly")[turn // 2 % 2]
    )


def test_every_fault_is_tried():
    assert {fault.split()[0] for fault in FAULTS} == set(KNOWN) - LEFT_OUT


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("fault", "phase", "model", "way"),
    [pytest.param(*cell, marks=[] if is_short(*cell) else pytest.mark.long) for cell in CELLS],
)
def test_nothing_is_lost_and_nothing_hangs(tmp_path, record_property, fault, phase, model, way):
    before = {thread.ident for thread in threading.enumerate()}
    with sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as dcu:
        scan = Scan(dcu, tmp_path / "data", way)
        outcome = scan.run(fault, phase)
        assert scan.engine.state == "idle"
        assert outcome.seconds < LONGEST
        scan.settle(outcome)
        record_property("outcome", str(outcome))

        assert outcome.wrong == 0
        assert outcome.lost == []
        if outcome.right < POINTS:
            # An error says so, and names a request, a file or a state.
            assert outcome.raised
        if outcome.unread:
            lost = ("_data_", "_master", "images came home")
            assert any(word in told for told in outcome.raised for word in lost)
        for told in outcome.raised:
            assert any(
                word in told for word in (dcu.url, ".h5", "state", "images", "image ", "DCU")
            ), told

        assert scan.again() == ""
        scan.eiger.destroy()
        assert connections_to(urlsplit(dcu.url).port) == 0
    assert left_over(before) == []
