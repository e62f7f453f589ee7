"""What single startup files define, run as the profile runs them, without a prompt around them."""

import contextlib
import json
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bluesky.plans as bp
import pytest
import requests
from bluesky import RunEngine
from bluesky.plan_stubs import mv
from bluesky.preprocessors import SupplementalData
from bluesky.utils import FailedStatus, Msg, RunEngineInterrupted
from eiger_plans import series
from ophyd import Signal
from ophyd.sim import SynAxis
from ophyd.status import Status

import sim_dcu
from ophyd_eiger import EigerDetector, EigerError
from ophyd_eiger.companion import Companion
from ophyd_eiger.errors import StateError
from ophyd_eiger.signals import LimitError
from sim_dcu.beam import Beam

STARTUP = Path(__file__).parents[2] / "profile_collection" / "startup"


def started(name, **given):
    """Return what a startup file has defined, with these names of the files before it."""
    return SimpleNamespace(**runpy.run_path(str(STARTUP / name), given))


class Prompt:
    """What of IPython's shell is asked."""

    def __init__(self):
        self.call_pdb = False
        self.InteractiveTB = SimpleNamespace(tb=None)
        self.traced = []

    def set_custom_exc(self, kinds, show):
        self.kinds, self.show = kinds, show

    def showtraceback(self, error, tb_offset=None):
        self.traced.append(error[1])

    def fails(self, error):
        """Show an error as IPython does."""
        assert isinstance(error, self.kinds)
        try:
            raise error
        except self.kinds as raised:
            self.show(self, type(raised), raised, raised.__traceback__)


@pytest.fixture
def prompt():
    shell = Prompt()
    started("15-errors.py", get_ipython=lambda: shell)
    return shell


@pytest.fixture
def failed():
    """Return how bluesky tells that a Status failed, by what that failed."""

    def failed_by(error):
        told = FailedStatus(Status())
        told.__cause__ = error
        return told

    return failed_by


@pytest.fixture
def lit():
    with sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True) as dcu:
        names = started("45-light.py", simulator=SimpleNamespace(url=dcu.url))
        yield SimpleNamespace(
            dcu=dcu, light=names.light, shutter=names.shutter, beam=f"{dcu.url}/sim/beam"
        )


def test_an_error_of_the_detector_is_its_sentence(prompt, failed, capsys):
    off = StateError("eiger: it is off")
    for error in (off, failed(off), failed(failed(off))):
        prompt.fails(error)
        assert capsys.readouterr().err == "StateError: eiger: it is off\n(%tb shows where)\n"
        # There %debug goes.
        assert prompt.InteractiveTB.tb is error.__traceback__
    prompt.fails(LimitError("too much"))
    assert capsys.readouterr().err.startswith("LimitError: too much\n")
    assert prompt.traced == []


def test_a_value_that_a_plan_refuses_is_its_sentence(prompt, capsys):
    eiger = EigerDetector("http://127.0.0.1:1", name="eiger")

    def typed():
        yield from series(eiger, math.nan)

    with pytest.raises(ValueError, match="exposure") as refused:
        list(typed())
    prompt.show(prompt, refused.type, refused.value, refused.tb)
    told = capsys.readouterr().err
    assert told == "ValueError: series: exposure is nan; it is finite\n(%tb shows where)\n"
    assert prompt.traced == []


@pytest.mark.parametrize(
    "typed",
    [
        lambda eiger: bp.count(eiger, 3),
        lambda eiger: bp.scan([eiger], eiger.detector.count_time, 0, 1),
        lambda eiger: series(eiger, "0.1"),
        lambda eiger: series(eiger),
        lambda eiger: RunEngine({})(bp.count),
    ],
)
def test_a_plan_that_is_called_wrongly_is_a_sentence(prompt, capsys, typed):
    eiger = EigerDetector("http://127.0.0.1:1", name="eiger")
    with pytest.raises((TypeError, ValueError)) as refused:
        list(typed(eiger))
    prompt.show(prompt, refused.type, refused.value, refused.tb)
    told = capsys.readouterr().err
    assert told.startswith(f"{refused.type.__name__}: ")
    assert told.endswith("\n(%tb shows where)\n")
    assert prompt.traced == []
    eiger.destroy()


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("eiger", lambda motor: bp.count(["eiger"])),
        ("motor", lambda motor: bp.scan([motor], "motor", 0, 1, 3)),
        ("motor", lambda motor: mv("motor", 1)),
    ],
)
def test_a_name_in_quotes_is_a_sentence(prompt, capsys, name, typed):
    with pytest.raises(AttributeError) as refused:
        RunEngine({})(typed(SynAxis(name="motor")))
    prompt.show(prompt, refused.type, refused.value, refused.tb)
    told = capsys.readouterr().err.splitlines()
    assert told[-2:] == [
        f"TypeError: '{name}' is a string; a plan wants the object: {name}, without quotes",
        "(%tb shows where)",
    ]
    assert prompt.traced == []


def test_a_type_error_in_a_plan_of_the_users_own_keeps_its_traceback(prompt, capsys):
    def per_shot(detectors):
        yield from ()
        return len(detectors) + "x"

    with pytest.raises(TypeError, match="unsupported operand") as failed:
        RunEngine({})(bp.count([], 1, per_shot=per_shot))
    prompt.show(prompt, failed.type, failed.value, failed.tb)
    assert prompt.traced == [failed.value]
    assert capsys.readouterr().err == ""


def test_a_plan_beside_a_paused_one_is_a_sentence(prompt, capsys):
    engine = RunEngine({})
    with pytest.raises(RunEngineInterrupted):
        engine([Msg("pause")])
    with pytest.raises(RuntimeError) as refused:
        engine([Msg("null")])
    engine.abort()
    prompt.show(prompt, refused.type, refused.value, refused.tb)
    assert (
        capsys.readouterr().err.splitlines()[-2].startswith("RuntimeError: a plan is paused: RE.")
    )
    assert prompt.traced == []


@pytest.mark.parametrize("asked", ["resume", "abort", "stop", "halt"])
def test_what_is_asked_of_no_plan_is_a_sentence(prompt, capsys, asked):
    with pytest.raises(RuntimeError) as refused:
        getattr(RunEngine({}), asked)()
    prompt.show(prompt, refused.type, refused.value, refused.tb)
    assert capsys.readouterr().err.splitlines()[-2].startswith("RuntimeError: no plan is paused")
    assert prompt.traced == []


def test_other_errors_are_shown_in_full(prompt, failed, capsys):
    others = [failed(ValueError("a motor's")), failed(None), ValueError("of the user's own")]
    others.append(TypeError("of the user's own"))
    others.append(AttributeError("of the user's own", name="x", obj="text"))
    others += [KeyError("of the user's own"), RuntimeError("of the user's own")]
    for error in others:
        prompt.fails(error)
    # After %pdb the debugger begins, as ever.
    prompt.call_pdb = True
    others.append(StateError("it is off"))
    prompt.fails(others[-1])
    assert prompt.traced == others
    assert capsys.readouterr().err == ""


def test_light_and_shutter(lit, capsys):
    lit.light("flat", 200, energy=9000)
    assert capsys.readouterr().out == "light: flat, flux 200, photons of 9000 eV\n"
    engine = RunEngine({})
    engine(mv(lit.shutter, "close"))
    assert lit.dcu.beam == Beam("flat", 0.0, 9000)
    # What is asked for behind a closed shutter shines when it opens; closed again is no change.
    lit.light(flux=300)
    assert capsys.readouterr().out.endswith("flux 300, photons of 9000 eV; the shutter is closed\n")
    lit.shutter.put("close")
    assert requests.get(lit.beam, timeout=10).json()["flux"] == 0
    engine(mv(lit.shutter, "open"))
    assert lit.dcu.beam == Beam("flat", 300.0, 9000)
    # What another has changed, as in the page, stays.
    requests.put(lit.beam, json={"flux": 7}, timeout=10).raise_for_status()
    lit.light()
    assert "flux 7," in capsys.readouterr().out
    engine(mv(lit.shutter, "close"))
    engine(mv(lit.shutter, "open"))
    assert lit.dcu.beam.flux == 7


def test_light_that_there_is_not(lit):
    before = lit.dcu.beam
    for asked in ({"scene": "moon"}, {"flux": -1}, {"energy": 0}):
        with pytest.raises(EigerError, match="there is no such light"):
            lit.light(**asked)
    with pytest.raises(ValueError, match="'open' and 'close', and not to 'ajar'"):
        lit.shutter.put("ajar")
    assert (lit.dcu.beam, lit.shutter.get()) == (before, "open")
    lit.shutter.put("close")
    with pytest.raises(ValueError, match="there is no such light"):
        lit.light(flux=-1)
    lit.shutter.put("open")
    assert lit.dcu.beam == before


def test_a_real_detector_has_neither():
    names = vars(started("45-light.py", simulator=None))
    assert names.keys().isdisjoint({"light", "shutter"})


def test_a_companion_says_what_it_is_and_where():
    companion = Companion("http.server", "--help")
    assert repr(companion) == "<Companion http.server>"
    # Without the key.
    companion._url = "http://127.0.0.1:1/api?api_key=secret"
    assert repr(companion) == "<Companion http.server at http://127.0.0.1:1/api>"
    companion.end()
    assert repr(companion) == "<Companion http.server at http://127.0.0.1:1/api, ended>"


PRESSED = """
import contextlib, runpy, signal, sys, threading, time
from pathlib import Path
import bluesky.plan_stubs as bps
from bluesky.utils import RunEngineInterrupted

given = {"data_folder": Path(sys.argv[2]), "at_exit": contextlib.ExitStack()}
RE = runpy.run_path(sys.argv[1], given)["RE"]
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
for seconds in (1, 2):
    threading.Timer(seconds, signal.pthread_kill, (other.ident, signal.SIGINT)).start()
began = time.monotonic()
try:
    RE(bps.sleep(50))
except RunEngineInterrupted:
    print("paused after", time.monotonic() - began)
    RE.abort()
"""


def printed(code, folder):
    """Return what a process prints that runs the RunEngine's file with this folder."""
    arguments = ["-c", code, str(STARTUP / "10-runengine.py"), str(folder)]
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_ctrl_c_is_heard_whichever_thread_is_told_of_it(tmp_path):
    (seconds,) = re.findall(r"paused after ([0-9.]+)", printed(PRESSED, tmp_path))
    assert 2 <= float(seconds) < 5


ENGINE = """
import contextlib, runpy, sys
from pathlib import Path

given = {"data_folder": Path(sys.argv[2]), "at_exit": contextlib.ExitStack()}
RE = runpy.run_path(sys.argv[1], given)["RE"]
RE.md["sample"] = "lysozyme"
"""


@pytest.mark.long
@pytest.mark.parametrize("content", ['{"scan_id": 12,', "[1, 2]"])
def test_damaged_metadata_are_kept_aside(tmp_path, content):
    (tmp_path / "metadata.json").write_text(content)
    said = printed(ENGINE, tmp_path)
    (aside,) = tmp_path.glob("metadata.json.damaged-*")
    assert aside.read_text() == content
    assert f"{tmp_path / 'metadata.json'} was damaged" in said
    assert aside.name in said
    assert json.loads((tmp_path / "metadata.json").read_text())["sample"] == "lysozyme"


@pytest.fixture
def beamline(tmp_path):
    """What a beamline has that adds the detector to its own profile."""
    with (
        sim_dcu.serve(model="eiger-500k", time_scale=0, initialized=True) as dcu,
        contextlib.ExitStack() as at_exit,
    ):
        ring = Signal(name="ring_current", value=400.0)
        sd = SupplementalData(baseline=[ring])
        engine = RunEngine({})
        engine.preprocessors.append(sd)
        yield {
            "RE": engine,
            "sd": sd,
            "data_folder": tmp_path,
            "at_exit": at_exit,
            "motor": SynAxis(name="motor"),
            "simulator": SimpleNamespace(url=dcu.url),
        }


def test_a_beamlines_own_baseline_and_preprocessors_stay(beamline):
    """With the names that the profile's README says it uses; twice, as %run -i does it."""
    engine, documents = beamline["RE"], []

    def own(plan):
        return plan

    engine.preprocessors.append(own)
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    names = started("40-eiger.py", **beamline)
    names = started("40-eiger.py", **vars(names))
    engine(bp.count([names.eiger]))
    (baseline,) = [
        doc for name, doc in documents if name == "descriptor" and doc["name"] == "baseline"
    ]
    assert {"ring_current", "motor"} <= set(baseline["data_keys"])
    assert "eiger_detector_state" in baseline["data_keys"]
    assert own in engine.preprocessors
    assert len(engine.preprocessors) == 3


def test_an_address_that_is_none_is_a_line(beamline, monkeypatch, capsys):
    monkeypatch.setenv("EIGER_URL", "ftp://eiger")
    names = started("40-eiger.py", **{**beamline, "simulator": None})
    assert re.search(r"^EIGER_URL: .*ftp://eiger", capsys.readouterr().out)
    assert names.eiger.name == "eiger"
    names.eiger.destroy()


@pytest.mark.parametrize("says_the_address", [False, True])
def test_a_catalog_that_wants_a_login_is_not_used(monkeypatch, tmp_path, capsys, says_the_address):
    """What tiled raises where nobody is there to type a name."""
    ended = SimpleNamespace(url="http://folder", end=lambda: None)
    catalog = SimpleNamespace(
        is_sql=False, v1=SimpleNamespace(insert=print), context=SimpleNamespace(close=print)
    )

    def from_uri(address):
        if address == "http://folder":
            return catalog
        raise RuntimeError(f"401 for {address}") if says_the_address else EOFError

    monkeypatch.setattr("tiled.client.from_uri", from_uri)
    monkeypatch.setenv("EIGER_CATALOG", "https://tiled.example/api?api_key=secret")
    with contextlib.ExitStack() as at_exit:
        names = started(
            "20-catalog.py",
            os=os,
            RE=RunEngine({}),
            catalog_server=None,
            data_folder=tmp_path,
            at_exit=at_exit,
            start_catalog=lambda folder: ended,
        )
    said = capsys.readouterr().out
    assert names.cat is catalog
    why = "401 for https://tiled.example/api?..." if says_the_address else "EOFError"
    assert f"https://tiled.example/api is not used ({why}): runs go to" in said
    assert "secret" not in said


def test_a_folder_that_cannot_be_is_told_in_a_sentence_and_there_is_no_prompt(tmp_path):
    (tmp_path / "data").write_text("a file")
    done = subprocess.run(
        [sys.executable, str(STARTUP / "00-settings.py")],
        env={**os.environ, "EIGER_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"no prompt: what is taken goes to {tmp_path / 'data'}, which cannot be written "
        "(File exists); set EIGER_DATA to a folder that can\n"
    )
