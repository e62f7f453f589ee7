"""Time from the command to the prompt of the example profile, and from `exit()` to the end.

    python benchmarks/profile_start.py [--write]

IPython with the profile, its own simulated DCU and its own catalog, as `make shell` starts it. CPU
is that of all its processes. Cold is a new folder after everything of the Python environment was
dropped from the page cache. The aim is below 10 s from cold, on two cores that are free.
"""

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pexpect
import results

STARTUP = Path(__file__).parents[1] / "profile_collection" / "startup"
RUNS = 3


def forget_files() -> None:
    """Drop the environment's files from the page cache, as far as nobody has them in use."""
    for folder in {sys.prefix, sys.base_prefix}:
        for path in Path(folder).resolve().rglob("*"):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(folder: Path) -> tuple[float, float, float]:
    """Return seconds: until the prompt is there, until all has ended after it, of CPU in all."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", f"--profile-dir={folder / 'profile'}", "--no-banner", "--simple-prompt"],
        cwd=folder,
        env={**os.environ, "TERM": "dumb", "EIGER_URL": "", "EIGER_DATA": "", "EIGER_CATALOG": ""},
        encoding="utf-8",
        timeout=120,
    )
    child.expect(r"state 'idle'[\s\S]*In \[1\]")
    ready = time.perf_counter()
    child.sendline("exit()")
    child.expect(pexpect.EOF)
    child.close()
    ended = time.perf_counter()
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return ready - began, ended - ready, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_flag(parser)
    write = parser.parse_args().write
    starts: dict[str, list[tuple[float, float, float]]] = {
        "cold": [],
        "new folder": [],
        "again": [],
    }
    for _ in range(RUNS):
        for kind in ("cold", "new folder"):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                shutil.copytree(STARTUP, folder / "profile" / "startup")
                if kind == "cold":
                    forget_files()
                starts[kind].append(measured(folder))
                if kind == "new folder":
                    starts["again"].append(measured(folder))
    rows = [
        f"Medians of {RUNS}, shortest and longest; seconds.",
        "",
        "| start | to the prompt | shortest | longest | CPU | exit() to the end | below 10 s |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for kind, each in starts.items():
        ready, ended, cpu = zip(*each, strict=True)
        median = statistics.median(ready)
        rows.append(
            f"| {kind} | {median:.1f} | {min(ready):.1f} | {max(ready):.1f} "
            f"| {statistics.median(cpu):.1f} | {statistics.median(ended):.1f} "
            f"| {'yes' if median < 10 else 'no'} |"
        )
    results.show("\n".join(rows) + "\n", "profile_start", write=write)


if __name__ == "__main__":
    main()
