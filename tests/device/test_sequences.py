"""The ordered requests of each verb in each mode, as docs/sequences.md draws them."""

import contextlib
import itertools
from pathlib import Path

import pytest
from sequences import RELIED_ON, SEQUENCES, SHARED, as_markdown
from signals_at_the_input import signals
from test_requests import RELIED_ON as ALL_RELIED_ON
from test_requests import SHARED as ALL_SHARED

from ophyd_eiger import TriggerInfo

DOCS = Path(__file__).parents[2] / "docs" / "sequences.md"


def shortened(requests):
    """Return the requests with repeated ones starred, and the lists of settings by their names."""
    found = []
    for request, group in itertools.groupby(requests):
        found.append(f"{request}*" if len(list(group)) > 1 else request)
    for start in range(len(found)):
        for name, listed in ((RELIED_ON, ALL_RELIED_ON), (SHARED, ALL_SHARED)):
            if found[start : start + len(listed)] == listed:
                found[start : start + len(listed)] = [name]
    return found


def agree(found, wanted):
    """Whether the requests are those: what may be repeated may also have been sent once."""
    return len(found) == len(wanted) and all(
        one == other or (other.endswith("*") and one == other[:-1])
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("title", SEQUENCES)
def test_requests(dcu, eiger, requests_sent, title):
    settings, verbs = SEQUENCES[title]
    eiger.configure(settings)
    flown = TriggerInfo(2, 1, "exts")
    calls = {"prepare": lambda: eiger.prepare(flown)}
    mode = "exts" if "exts" in title else "exte" if "exte" in title else ""
    for step, wanted in verbs:
        requests_sent.clear()
        needs_signals = mode and step in ("trigger", "kickoff, complete")
        source = (
            signals(dcu, gate=0.004 if mode == "exte" else None)
            if needs_signals
            else contextlib.nullcontext()
        )
        with source:
            for verb in step.split(", "):
                calls.get(verb, getattr(eiger, verb))().wait(20)
        found = shortened(requests_sent())
        assert agree(found, wanted), (step, found)


def test_the_page_is_made_of_them():
    assert DOCS.read_text(encoding="utf-8") == as_markdown()
