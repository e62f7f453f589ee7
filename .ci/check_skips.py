"""Fail if a test was skipped for a reason that is not allowed.

Usage: check_skips.py ALLOWED JUNIT_XML
"""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def skipped(report: Path) -> list[tuple[str, str]]:
    """Return (test, reason) for every skipped test of a pytest JUnit report."""
    cases = ET.parse(report).getroot().iter("testcase")
    return [
        (f"{case.get('classname')}::{case.get('name')}", mark.get("message") or "")
        for case in cases
        for mark in case.iter("skipped")
        if mark.get("type") == "pytest.skip"
    ]


def main() -> int:
    """Print the tests that must not be skipped; return how the process ends."""
    allowed, report = (Path(argument) for argument in sys.argv[1:])
    lines = allowed.read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    found = skipped(report)
    wrong = [
        (test, reason)
        for test, reason in found
        if not any(re.fullmatch(pattern, reason) for pattern in patterns)
    ]
    for test, reason in wrong:
        sys.stdout.write(f"must not be skipped: {test}: {reason}\n")
    sys.stdout.write(f"{len(found)} skipped, {len(found) - len(wrong)} of them allowed\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
