"""An acceptance test that is ended by Ctrl-C: its thread is over and nothing armed before it is.

What was sent is what the DCU's client was asked for; settings and state are asked by plain HTTP.
"""

import threading

import pytest
from acceptance_runs import detector, settings, state
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from eiger_plans import acceptance_test
from eiger_plans.acceptance.asking import Asking
from eiger_plans.acceptance.findings import Report
from eiger_plans.acceptance.integrity import Taken
from eiger_plans.acceptance.taking import Series, Taking

import sim_dcu
from ophyd_eiger import DcuClient
from ophyd_eiger.errors import StateError

GENERATIONS_BY_TURNS = True


@pytest.fixture(params=("eiger-500k", "eiger2-500k"))
def model(request):
    return request.param


@pytest.fixture
def dcu(model):
    with sim_dcu.serve(model, time_scale=0, seed=3, initialized=True) as server:
        yield server


@pytest.mark.parametrize("ends", ["by itself", "not"])
def test_an_arm_under_way_is_ended_before_the_plan_is(dcu, model, tmp_path, monkeypatch, ends):
    engine, stopped, sent = RunEngine({}), threading.Event(), []
    stop, command = Asking.stop, DcuClient.command

    def stops(asking):
        stop(asking)
        stopped.set()

    def commanded(client, subsystem, name, *args, **kwargs):
        if name == "arm" and "arm" not in sent:
            engine.request_pause()
            assert stopped.wait(20)
        sent.append(name)
        if name == "disarm" and ends == "not" and sent.count("disarm") == 1:
            raise StateError("the thread could not disarm")
        return command(client, subsystem, name, *args, **kwargs)

    monkeypatch.setattr(Asking, "stop", stops)
    monkeypatch.setattr(DcuClient, "command", commanded)
    with detector(dcu, tmp_path) as eiger:
        eiger.connect()
        before = settings(dcu, model)
        with pytest.raises(RunEngineInterrupted):
            engine(acceptance_test(eiger, time_scale=0, seconds=0.3))
        assert engine.state == "idle"
        assert [name for name in sent if name in ("arm", "disarm")] == (
            ["arm", "disarm"] if ends == "by itself" else ["arm", "disarm", "disarm"]
        )
        assert state(dcu, model) == "idle"
        assert settings(dcu, model) == before
    assert sent.count("arm") == 1


def test_what_waits_for_the_monitor_ends_when_the_test_is(dcu, tmp_path):
    with detector(dcu, tmp_path) as eiger:
        eiger.connect()
        asking = Asking(eiger)
        taking = Taking(eiger, asking, Report(eiger.address, {}), 10.0, 0.0)
        wanted = Series("watched", watched=True)
        asking.stop()
        (check,) = taking._monitor(Taken(wanted.name, 1, 1, 1000), [])
        assert "is being ended" in check.found
        asking.go_on()
        asking.check_going_on()
        asking.close()
