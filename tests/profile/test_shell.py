"""What a new user types into `make shell`, and what becomes of it."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiled.client import from_uri

import sim_dcu
from ophyd_eiger.trial import start_catalog

# Of the five points, each a series of one image.
ORACLE = (
    "[np.load(io.BytesIO(requests.get(f'{eiger.address}/sim/image/{series}/1').content))"
    " for series in range(1, 6)]"
)
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FIRST_COMMANDS = README.partition("```python\n")[2].partition("```")[0]
COMMAND = Path(sys.executable).with_name("ophyd-eiger")
NO_THREADS = "threads left: ['MainThread']"


@pytest.mark.timeout(300)
@pytest.mark.long
def test_what_is_taken_in_one_shell_is_found_in_the_next(open_shell, tmp_path):
    shell = open_shell()
    assert re.search(r"Eiger 1M at http://127\.0\.0\.1:\d+, state 'idle'", shell.greeting)
    assert "cat: 0 runs" in shell.greeting
    assert "no files: there are no runs yet: RE(count([eiger], 3)) takes one" in shell("where()")
    assert "no image to show: there are no runs yet" in shell("show_last()")
    # The README's first commands, line by line.
    typed = [shell(line) for line in FIRST_COMMANDS.splitlines()]
    assert "eiger_live_full_sum" in typed[0]
    assert "(5, 1, 1065, 1030)" in typed[-1]
    shell("import io, requests")
    shell(f"np.save('oracle.npy', {ORACLE})")
    # Its picture and its files are those that are told.
    image = np.load(tmp_path / "oracle.npy")[-1]
    good = np.where(image == image.max(), 0, image)
    y, x = np.unravel_index(good.argmax(), good.shape)
    shown = shell("show_last()")
    assert f"run 1, point 5, image 1 of 1: {good.sum()} photons" in shown
    assert f"at most {good.max()}, at x = {x}, y = {y}" in shown
    assert (tmp_path / "data" / "last_image.png").read_bytes().startswith(b"\x89PNG")
    told = shell.value("where()")
    files = {path.name for path in (tmp_path / "data").glob("eiger_*.h5")}
    assert len(files) == 15
    assert len(re.findall(r"_view\.h5  \d+\.\d kB", told)) == 5
    # Image 1 is not run 1, and there is no run 3.
    hint = "run 1, point 5 has no image 1, but image 0 alone; run 1 is show_last(run=1)"
    assert hint in shell("show_last(1)")
    assert "has no image 3, but image 0 alone" in (missing := shell("show_last(3)"))
    assert "show_last(run=3)" not in missing
    assert set(re.findall(r"eiger_\w+\.h5", told)) == files
    assert "eiger_live_full_sum vs time" in shell("show_plots()")
    assert (tmp_path / "data" / "plot_1.png").read_bytes().startswith(b"\x89PNG")

    assert re.match(r"EigerDetector 'eiger' at http://\S+: \S+ Eiger 1M$", shell.value("eiger"))
    for run in ("99", "'zz'"):
        assert f"no files: there is no run {run}" in shell(f"where({run})")
        assert f"no image to show: there is no run {run}" in shell(f"show_last(run={run})")
    said = shell("show_last('zz')")
    assert "no image to show: 'zz' is no image's number; a run is show_last(run='zz')" in said
    # A refusal is a sentence, and what else fails has its traceback.
    forgotten = shell("RE(count(eiger, 3))")
    assert re.match(r"\s*TypeError: .*list", forgotten), forgotten
    assert len(forgotten.splitlines()) < 6
    absent = shell("cat[12]")
    assert "LookupError: No match for scan_id=12" in absent
    assert len(absent.splitlines()) < 6
    in_quotes = shell("RE(count(['eiger']))")
    assert "TypeError: 'eiger' is a string; a plan wants the object" in in_quotes
    assert len(in_quotes.splitlines()) < 6
    refused = shell("RE(series(eiger, '0.1'))")
    assert "ArgumentError: series: exposure is '0.1'; it is a number" in refused
    refused = shell("RE(dark(eiger, 0.5, images=5))")
    assert "TooFewCountsError: 5 images of 0.5 s" in refused
    assert "Traceback" not in refused
    assert "check_dark" in shell("%tb")
    assert "Traceback" in shell("1 / 0")
    assert "light: flat, flux 0.5," in shell("light('flat', 0.5)")
    assert "light: scatter, flux 1," in shell("light('scatter', 1)")

    # bluesky's magics, of which none makes a run.
    where_all = shell("%wa")
    assert re.search(r"motor +0\.0 +-180\.0 +180\.0 +0\.0\s", where_all), where_all
    assert re.search(r"detectors\s.*eiger +eiger\s", where_all, re.DOTALL), where_all
    assert "Error" not in shell("%mov motor 0.5") + shell("%movr motor -0.2")
    assert re.search(r"motor +0\.3 ", shell("%wa motors"))
    counted = shell("%ct")
    assert re.search(r"eiger_live_full_sum +[1-9]", counted), counted
    assert "eiger_times" not in counted
    (series,) = re.findall(r"eiger_files_series +(\S+)", counted)
    assert (tmp_path / "data" / f"{series}_master.h5").exists()
    assert shell.value("len(cat)") == "1"
    # Its catalog is another program's, too, by the folder, however that is written.
    folder = "data/../data/catalog"
    reprocess = [COMMAND, "reprocess", folder, "1", "--roi", "all=0,0,1030,1065", "--json"]
    done = subprocess.run(reprocess, cwd=tmp_path, capture_output=True, check=True, timeout=200)
    (run,) = json.loads(done.stdout)["runs"]
    assert run["scan_id"] == 1
    oracle = np.load(tmp_path / "oracle.npy")
    total = np.where(oracle == oracle.max(), 0, oracle).sum(dtype=np.uint64)
    assert (run["sum"], run["regions"]) == (total, {"all": total})

    # Every file once more: nothing is subscribed twice, and the runs stay.
    for path in sorted((tmp_path / "profile" / "startup").glob("*.py")):
        assert "Error" not in shell(f"%run -i {path}")
    shell("live()")
    # Long enough for bars: bluesky draws none of what is over within 0.2 s.
    live = shell("RE(series(eiger, 0.3, 3))")
    assert re.search(r"eiger: trigger.*images", live), live
    assert live.count("eiger_live_full_sum") == 1
    assert re.search(r"series \d+, image \d: \d+ photons in good pixels", live), live
    shell("live(False)")
    assert shell.value("len(cat), len(RE.preprocessors), len(RE.suspenders) > 1") == "(2, 2, True)"
    assert NO_THREADS in shell.exit()

    # The next one, whose DCU is off: one line, and a prompt and a catalog that work.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shell = open_shell(EIGER_URL=f"http://127.0.0.1:{port}")
    (told,) = [line for line in shell.greeting.splitlines() if "not connected" in line]
    assert "cannot be reached" in told
    assert "Traceback" not in shell.greeting
    assert "cat: 2 runs" in shell.greeting
    shell("np.save('read.npy', np.asarray(cat[1].primary.read()['eiger_image'])[:, 0])")
    assert np.array_equal(np.load(tmp_path / "read.npy"), np.load(tmp_path / "oracle.npy"))
    shell("RE.md['sample'] = 'lysozyme'")
    assert "scan num: 3" in shell("RE(scan([motor], motor, 0, 0.1, 2))")
    assert shell.value("cat[3].metadata['start']['sample']") == "'lysozyme'"
    assert "DcuUnreachableError" in shell("eiger.connect()")
    with sim_dcu.serve(model="eiger-500k", initialized=True, port=port):
        assert "Error" not in shell("eiger.connect(); suspenders_on()")
        assert "seq_num" in shell("RE(count([eiger]))")
        assert shell.value("'baseline' in cat[-1], len(RE.suspenders) > 1") == "(True, True)"
        assert NO_THREADS in shell.exit()


@pytest.mark.timeout(600)
@pytest.mark.long
def test_interruptions_do_what_the_text_says(open_shell, tmp_path):
    shell = open_shell()
    shell("eiger.configure({'frame_time': 8, 'count_time': 7.9}) and None")
    shell.begin("RE(count([eiger], 2))", r"eiger: trigger")
    shell.interrupt()
    assert shell.value("RE.state") == "'paused'"
    assert "generator count" in shell("RE.resume()")
    assert shell.value("len(cat[-1].primary.read()['time'])") == "2"

    shell.begin("RE(count([eiger], 2))", r"eiger: trigger")
    shell.interrupt()
    aborted = shell("RE.abort()")
    assert "Traceback" not in aborted
    stop = "cat[-1].metadata['stop']['exit_status']"
    assert shell.value(f"RE.state, {stop}") == "('idle', 'abort')"
    assert shell.value("eiger.detector.state.get()") == "'idle'"

    # Left in the middle of a scan: it is aborted, and the next shell knows it.
    shell.begin("RE(count([eiger], 9))", r"\|\s+1 \|")
    shell.pause()
    # An event's numbers are in the catalog as soon as they are in the table, images at the end.
    events = "len(cat[-1].primary.read(['eiger_live_full_sum'])['eiger_live_full_sum'])"
    taken = shell.value(events)
    assert 1 <= int(taken) < 9
    shell.child.sendeof()
    shell.child.expect("really want to exit")
    assert NO_THREADS in shell.exit("y")
    shell = open_shell()
    assert shell.value(stop) == "'abort'"
    assert shell.value("cat[-1].primary.read()['eiger_image'].shape[0]") == taken
    assert "_master.h5" in shell.value("where()")

    # Killed in the middle of one: what it started ends all the same, and what is in the catalog is.
    shell.begin("RE(count([eiger], 500))", r"eiger: trigger")
    shell.child.kill(9)
    shell.ended()
    shell = open_shell()
    assert "cat: 4 runs" in shell.greeting
    assert "scan num: 5" in shell("RE(count([eiger]))")
    shell.exit()
    # The catalog is another program's, too, which says what it has not.
    for run, why in (("7", "run '7'"), ("zz", "run 'zz': of a uid give 5 characters at least")):
        done = subprocess.run(
            [COMMAND, "reprocess", "data/catalog", run, "--profile", "9", "--save"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert (done.returncode, done.stderr) == (1, f"Error: there is no {why}\n")


@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_catalog_of_a_server(open_shell, tmp_path):
    server = start_catalog(tmp_path / "elsewhere")
    shell = open_shell(EIGER_CATALOG=server.url)
    assert len(shell.companions) == 2  # the simulator, and the shell that ends it
    shell("eiger.configure({'frame_time': 0.1, 'count_time': 0.05}) and None")
    shell("RE(count([eiger], 2))")
    assert shell.value("cat[-1].primary.read()['eiger_image'].shape") == "(2, 1, 1065, 1030)"
    assert NO_THREADS in shell.exit()
    assert not (tmp_path / "data" / "catalog").exists()
    client = from_uri(server.url)
    assert [run.metadata["start"]["scan_id"] for run in client.values()] == [1]
    client.context.close()
    server.end()

    # One that is off costs a line, and no run.
    shell = open_shell(EIGER_CATALOG=server.url)
    (told,) = [line for line in shell.greeting.splitlines() if "is not used" in line]
    assert "Connection refused" in told
    assert server.url.partition("=")[2] not in told
    assert "scan num: 2" in shell("RE(count([motor]))")
    assert shell.value("len(cat)") == "1"
    assert NO_THREADS in shell.exit()


@pytest.mark.timeout(600)
@pytest.mark.long
def test_two_shells_in_one_folder(open_shell):
    first = open_shell()
    second = open_shell()
    assert "another shell" not in first.greeting
    assert f"another shell, process {first.child.pid}" in second.greeting
    shells = (first, second)
    for shell in shells:
        shell("eiger.configure({'frame_time': 0.1, 'count_time': 0.05}) and None")
    for shell in shells:
        shell.child.sendline("print(len([RE(count([eiger], 3)) for _ in range(5)]), 'runs')")
    for shell in shells:
        assert "5 runs" in shell.answer()
    for shell in shells:
        numbers = "sorted(run.metadata['start']['scan_id'] for run in cat.values())"
        assert shell.value(numbers) == str(list(range(1, 11)))
        read = "{len(run.primary.read()['eiger_live_full_sum']) for run in cat.values()}"
        assert shell.value(read) == "{3}"
    for shell in shells:
        assert NO_THREADS in shell.exit()
