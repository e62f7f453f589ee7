"""The page of a simulated DCU, in a real browser; and who is shown it."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

# The helpers of the simulator's tests are imported by their own names.
sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))

from plain_client import Client, until

import sim_dcu
from sim_dcu.resources import OTHERS

# The short run takes each test with one generation only, see conftest.
GENERATIONS_BY_TURNS = True
LIMIT = 20.0  # s


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium that keeps what its console says."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    profile = tmp_path_factory.mktemp("profile")
    # The sandbox does not work for root, nor /dev/shm in small containers.
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1200,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(str(programs[1]), log_output=subprocess.DEVNULL)
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(params=["eiger-500k", "eiger2-500k"])
def dcu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sim_dcu.Server]:
    with sim_dcu.serve(
        request.param, seed=3, initialized=True, data_dir=tmp_path / "data"
    ) as server:
        yield server


@pytest.fixture
def client(dcu: sim_dcu.Server) -> Iterator[Client]:
    version = requests.get(f"{dcu.url}/detector/api/version", timeout=5).json()["value"]
    client = Client(dcu.url, version)
    with client.session:
        client.put("filewriter/config/mode", "enabled")
        yield client


def text(browser: Any, name: str) -> str:
    """Return what the page shows in one of its parts."""
    return browser.execute_script("return document.getElementById(arguments[0]).innerText", name)


def shown(browser: Any, name: str, *wanted: str) -> str:
    """Wait until a part of the page shows all that is wanted."""
    until(lambda: all(one in text(browser, name) for one in wanted), LIMIT)
    return text(browser, name)


@pytest.fixture
def page(browser: Any, dcu: sim_dcu.Server) -> Any:
    """The page of a DCU, which said nothing wrong on the console."""
    browser.get_log("browser")
    browser.get(dcu.url)
    shown(browser, "updated", "updated")
    yield browser
    said = browser.get_log("browser")
    # Left open, it would ask a DCU that has ended, and the next test would hear of it.
    browser.get("about:blank")
    assert [entry for entry in said if entry["level"] == "SEVERE"] == []


def test_idle(page: Any, dcu: sim_dcu.Server, client: Client) -> None:
    assert text(page, "state") == "idle"
    assert page.title == f"idle - sim-dcu {dcu.dcu.detector.model.name}"
    assert f"API {client.version}" in text(page, "model")
    assert text(page, "series") == "no series"
    settings = shown(page, "settings", "detector/photon_energy")
    # K-alpha of copper, the default (users' reports).
    assert "8047.78" in settings
    assert "eV" in settings
    assert "none set" in text(page, "faults-count")
    assert text(page, "files-count").startswith("0, ")


def test_it_follows_without_being_loaded_again(
    page: Any, dcu: sim_dcu.Server, client: Client
) -> None:
    page.execute_script("window.loadedOnce = true")
    client.config(nimages=5, count_time=0.25)
    shown(page, "settings", "detector/nimages\t5", "0.25")
    client.put("filewriter/config/nimages_per_file", 2)
    dcu.faults.set("stall:image=3")
    client.arm()
    shown(page, "state", "ready")
    shown(page, "files", "series_1_master.h5")
    trigger = threading.Thread(
        target=requests.put, args=[client.path("detector/command/trigger")], kwargs={"timeout": 60}
    )
    trigger.start()
    shown(page, "state", "acquire")
    shown(page, "series", "series 1: 3 of 5 images exposed, 3 delivered")
    shown(page, "subsystems", "filewriter\tacquire")
    shown(page, "faults", "stall", "image=3")
    dcu.faults.clear()
    trigger.join(LIMIT)
    shown(page, "state", "idle")
    shown(page, "faults-count", "none set")
    assert text(page, "faults") == ""
    shown(page, "files", "series_1_data_000003.h5")
    shown(page, "files-count", "4, ")
    assert "command/trigger -> 200" in shown(page, "requests", "command/trigger -> 200")
    assert page.execute_script("return window.loadedOnce") is True


def test_error_and_faults_that_struck(page: Any, dcu: sim_dcu.Server, client: Client) -> None:
    dcu.faults.set("error:image=1,text=module 3 lost")
    dcu.faults.set("refuse:command=disarm,status=503,times=1")
    client.config(nimages=3)
    client.arm()
    client.command("trigger")
    client.command("disarm")
    shown(page, "state", "error")
    assert text(page, "error") == "module 3 lost"
    shown(page, "faults", "refuse", "status=503", "command=disarm", "spent")
    struck = page.execute_script(
        "return [...document.querySelectorAll('#requests li.struck')].map((li) => li.innerText)"
    )
    assert len(struck) == 1
    assert "command/disarm -> 503 in" in struck[0]
    assert struck[0].endswith("(fault refuse)")


def test_what_clients_name_is_only_text(page: Any, dcu: sim_dcu.Server, client: Client) -> None:
    folder = dcu.dcu.store.folder
    name = "<img src=x onerror=window.gotcha=1> 100% & #1.h5"
    (folder / name).write_bytes(b"12")
    shown(page, "files", name, "2 B")
    requests.get(f"{dcu.url}/<script>window.gotcha=1</script>", timeout=5)
    shown(page, "requests", "<script>")
    assert page.execute_script("return window.gotcha") is None
    # The link leads to the file all the same.
    link = page.execute_script("return document.querySelector('#files a').href")
    assert requests.get(link, timeout=5).content == b"12"


def test_before_initialize_there_are_no_settings(browser: Any) -> None:
    with sim_dcu.serve("eiger-500k") as server:
        browser.get(server.url)
        shown(browser, "state", "na")
        assert "not initialized" in text(browser, "settings")


def test_it_says_when_the_dcu_is_gone_and_goes_on_when_it_is_back(
    page: Any, dcu: sim_dcu.Server
) -> None:
    shown(page, "state", "idle")
    dcu.faults.set("die:back=2")
    shown(page, "updated", "no answer")
    shown(page, "state", "na")
    shown(page, "updated", "updated")
    # What the console says of the refused requests is what is tried here.
    page.get_log("browser")


def test_it_documents_sim(page: Any, dcu: sim_dcu.Server) -> None:
    everything = page.execute_script("return document.body.innerText")
    for path in (path for path, _, _ in OTHERS if path.startswith("/sim")):
        assert path in everything
    listed = requests.get(f"{dcu.url}/sim/faults", timeout=5).json()["table"]
    page.execute_script("document.querySelector('details').open = true")
    names = [row["name"] for row in listed]
    assert shown(page, "table", names[-1]).count("\nTries: ") == len(names)


def test_it_is_not_wider_than_its_window(page: Any, client: Client) -> None:
    client.put("filewriter/config/name_pattern", "a_long_folder/" * 5 + "and_a_name" * 10)
    shown(page, "settings", "and_a_name")
    for width in (1200, 600):
        page.set_window_size(width, 900)
        overflow = page.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0


# -- who is shown it, without a browser -----------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere() -> None:
    with sim_dcu.serve("eiger-500k", initialized=True) as server:
        reply = requests.get(f"{server.url}/", timeout=5)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "http://" not in reply.text
    assert "https://" not in reply.text


def test_polling_is_not_logged() -> None:
    with sim_dcu.serve("eiger-500k", initialized=True) as server:
        requests.get(f"{server.url}/sim/state", timeout=5)
        requests.get(f"{server.url}/detector/api/version", timeout=5)
        log = requests.get(f"{server.url}/system/api/1.6.0/log", timeout=5).text
    assert "/sim/state" not in log
    assert "/detector/api/version" in log
