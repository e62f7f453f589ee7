"""A night in one process: a thousand points, and something that fails every twenty."""

import gc
import itertools
import threading

import psutil
import pytest
from fault_cell import Scan

import sim_dcu

POINTS = 20
# A fault, and the phase that it strikes in.
STRIKES = (
    ("refuse", "mid-series"),
    ("lose", "last trigger"),
    ("drop before", "first trigger"),
    ("error", "mid-series"),
    ("drop body", "transfer"),
    ("refuse 503", "transfer"),
    ("full", "mid-series"),
    ("file-truncated", "stage"),
    ("die kept", "mid-series"),
    ("lose", "stage"),
)


@pytest.mark.long
def test_a_block_of_a_night(tmp_path):
    run_night(tmp_path, blocks=4)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_night_of_1000_points(tmp_path):
    run_night(tmp_path, blocks=50)


def run_night(folder, *, blocks):
    with sim_dcu.serve("eiger-500k", time_scale=0, seed=3, initialized=True) as dcu:
        scan = Scan(dcu, folder / "data", "step", POINTS)
        process, used = psutil.Process(), []
        for block, (fault, phase) in zip(range(blocks), itertools.cycle(STRIKES), strict=False):
            scan.documents.clear()
            outcome = scan.run(fault, phase)
            scan.settle(outcome)
            # Every image is kept, or named as lost by the fault.
            assert (outcome.wrong, outcome.lost) == (0, []), (block, fault, outcome)
            if outcome.right < POINTS:
                assert outcome.raised, (block, fault, phase)
            named = " ".join((*outcome.raised, *itertools.chain(*outcome.owed.values())))
            assert not outcome.unread or "_data_" in named, (block, fault, outcome)
            scan.eiger.recover().wait(60)
            gc.collect()
            # Those that fetch try again what is broken on the DCU, of each series so many at once.
            threads = [thread.name for thread in threading.enumerate()]
            assert threads.count("eiger file") <= scan.eiger.file_policy.at_once, threads
            lasting = sum(name != "eiger file" for name in threads)
            used.append((process.memory_info().rss, lasting, process.num_fds()))
        scan.eiger.destroy()
    # The least of some blocks each: what grows with each scan would show, what ends late does not.
    some = max(blocks // 5, 1)
    early = [min(of_blocks) for of_blocks in zip(*used[some // 2 : some], strict=True)]
    late = [min(of_blocks) for of_blocks in zip(*used[-some:], strict=True)]
    assert late[0] - early[0] < 60 * 2**20
    assert late[1] <= early[1] + 3
    assert late[2] <= early[2] + 15
