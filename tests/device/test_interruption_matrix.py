"""Every way to interrupt a scan, in each mode and phase: obeyed in time, and no image mixed up."""

import contextlib
import itertools
import threading
from pathlib import Path

import pytest
from fault_cell import left_over
from interruption_cell import Scan, process
from interruption_rules import COMMANDS, LONGEST_S, MODES, PHASES, as_markdown, expected

DOCS = Path(__file__).parents[2] / "docs" / "interruptions.md"
GENERATIONS = ("eiger-500k", "eiger2-500k")
# Each with one of the generations, by turns in every direction.
CELLS = [
    (command, mode, phase, GENERATIONS[sum(place) % 2])
    for place, (command, mode, phase) in zip(
        itertools.product(*(range(len(each)) for each in (COMMANDS, MODES, PHASES))),
        itertools.product(COMMANDS, MODES, PHASES),
        strict=True,
    )
]
# Each kind of command, each phase and each trigger mode, with shorter exposures.
SHORT_EXPOSURE_S = 1.0
SHORT_CELLS = (
    ("Ctrl-C twice, abort", "step ints armed once", "later exposure", "eiger-500k"),
    ("Ctrl-C twice, stop", "step inte", "arm", "eiger2-500k"),
    ("suspender", "step exts", "between points", "eiger-500k"),
    ("halt", "fly exte", "disarm", "eiger2-500k"),
    ("request_pause, resume", "fly exts", "first exposure", "eiger-500k"),
    ("Ctrl-C", "fly ints", "transfer", "eiger2-500k"),
)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """One DCU of each generation for all cells of a worker, started when it is asked for."""
    running = {}
    with contextlib.ExitStack() as stack:

        def of(model, **how):
            which = (model, *how)
            if which not in running:
                folder = tmp_path_factory.mktemp(model)
                running[which] = stack.enter_context(process(model, folder, **how))
            return running[which]

        yield of


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("command", "mode", "phase", "model"), CELLS)
def test_interrupted(processes, tmp_path, command, mode, phase, model):
    interrupt(processes(model), tmp_path / "data", command, mode, phase)


@pytest.mark.parametrize(("command", "mode", "phase", "model"), SHORT_CELLS)
def test_interrupted_in_short(processes, tmp_path, command, mode, phase, model):
    dcu = processes(model, instant_puts=True)
    interrupt(dcu, tmp_path / "data", command, mode, phase, SHORT_EXPOSURE_S)


def interrupt(dcu, folder, command, mode, phase, *exposure_s):
    before = {thread.ident for thread in threading.enumerate()}
    wanted = expected(command, flies=mode.startswith("fly"), phase=phase)
    scan = Scan(dcu, folder, mode, phase, *exposure_s)
    try:
        outcome = scan.run(command)
        assert scan.engine.state == "idle"
        assert all(seconds < LONGEST_S for seconds in outcome.obeyed_s), outcome
        assert outcome.still_s < LONGEST_S
        scan.settle(outcome)

        assert outcome.raised == []
        assert outcome.paused == wanted.paused
        assert outcome.exit_status == wanted.exit_status
        assert outcome.events in wanted.events
        assert outcome.unread == []
        assert len(set(outcome.named)) == len(outcome.named) == outcome.events
        assert outcome.owed == {}
        assert scan.again() == ""
    finally:
        scan.eiger.destroy()
    assert left_over(before) == []


def test_the_page_is_made_of_the_rules():
    assert DOCS.read_text(encoding="utf-8") == as_markdown()
