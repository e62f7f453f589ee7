"""What an acceptance test found: checks with what was expected and what was found, and their sum.

Pure: no requests, no plans. `reports` writes it down for people.
"""

import datetime as dt
import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.StrEnum):
    """What became of a check."""

    PASS = "pass"
    FAIL = "fail"
    NOT_DONE = "not done"
    """It could not be judged, and `found` says why; no fault of the detector's."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    section : str
        What it belongs to, as in "resources".
    name : str
        What was looked at, as in "detector/config/count_time".
    expected, found : str
        In words and figures, with units.
    verdict : Verdict
        Whether they agree.
    """

    section: str
    name: str
    expected: str
    found: str
    verdict: Verdict


@dataclass
class Report:
    """All checks of one acceptance test.

    Attributes
    ----------
    url : str
        Address of the DCU.
    conditions : dict
        What was asked for: rates in Hz and MB/s, times in s.
    identity : dict of str
        Whose report it is: model, serial number, firmware, ... as the DCU says.
    checks : list of Check
        In the order in which they were done.
    started, finished : datetime.datetime
        By this computer's clock, with its zone; `finished` is None as long as it lasts.
    runs : list of str
        The uids of the runs that were taken.
    """

    url: str
    conditions: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now().astimezone())
    finished: dt.datetime | None = None
    runs: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether it came to its end and nothing failed."""
        return bool(self.checks) and self.finished is not None and not self.failures

    @property
    def verdict(self) -> str:
        """PASSED or FAILED."""
        return "PASSED" if self.passed else "FAILED"

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.verdict == Verdict.FAIL]

    @property
    def counts(self) -> dict[str, int]:
        """How many checks came to each verdict."""
        counted = Counter(check.verdict for check in self.checks)
        return {str(verdict): counted[verdict] for verdict in Verdict}

    def sections(self) -> dict[str, list[Check]]:
        """Return the checks by section, in order."""
        found: dict[str, list[Check]] = {}
        for check in self.checks:
            found.setdefault(check.section, []).append(check)
        return found

    def add(self, checks: Iterable[Check] | None) -> bool:
        """Add checks; return whether none of them failed."""
        added = list(checks or ())
        self.checks += added
        return all(check.verdict != Verdict.FAIL for check in added)

    def finish(self) -> None:
        """Note when it ended."""
        self.finished = dt.datetime.now().astimezone()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "verdict": self.verdict.lower(),
            "url": self.url,
            "started": self.started.isoformat(timespec="seconds"),
            "finished": self.finished and self.finished.isoformat(timespec="seconds"),
            "identity": self.identity,
            "conditions": self.conditions,
            "counts": self.counts,
            "runs": self.runs,
            "checks": [
                {
                    "section": check.section,
                    "name": check.name,
                    "expected": check.expected,
                    "found": check.found,
                    "verdict": str(check.verdict),
                }
                for check in self.checks
            ],
        }


class Section:
    """Makes the checks of one section.

    Parameters
    ----------
    name : str
        Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, name: str, expected: Any, found: Any, *, good: bool) -> Check:
        """Return a check that passes if it is `good`."""
        verdict = Verdict.PASS if good else Verdict.FAIL
        return Check(self.name, name, str(expected), str(found), verdict)

    def same(self, name: str, expected: Any, found: Any) -> Check:
        """Return a check that passes if what was found is what was expected."""
        return self.check(name, expected, found, good=expected == found)

    def failed(self, name: str, expected: Any, error: object) -> Check:
        """Return the check of what an error came of."""
        return self.check(name, expected, error, good=False)

    def not_done(self, name: str, expected: Any, why: str) -> Check:
        """Return the check of what could not be judged."""
        return Check(self.name, name, str(expected), why, Verdict.NOT_DONE)


def identity_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return whose report it is, of the values by resource.

    Parameters
    ----------
    values : mapping
        As in {"detector/config/description": "Dectris Eiger 1M"}.
    """
    named = {
        "model": "detector/config/description",
        "serial number": "detector/config/detector_number",
        "firmware": "detector/config/eiger_fw_version",
        "software": "detector/config/software_version",
        "sensor": "detector/config/sensor_material",
    }
    return {word: str(values[name]) for word, name in named.items() if values.get(name)}
