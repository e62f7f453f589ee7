"""Writes an acceptance test's report down: as text, Markdown, HTML that prints well, or JSON.

Pure but for `write`. Each has the date, whose report it is, each check with what was expected and
what was found, and a line to sign; text sums up what passed.
"""

import html
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from eiger_plans.acceptance.findings import Check, Report, Verdict
from ophyd_eiger import new_file

_TITLE = "Acceptance test of an EIGER detector"
_SIGNATURE = ("name", "date", "signature")
_STYLE = """
body { font: 11pt/1.4 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100%; font-size: 9pt }
td, th { border-bottom: 1px solid #ccc; padding: .2em .6em .2em 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere }
td:first-child, th:first-child { white-space: nowrap; width: 6em }
td:nth-child(2):not(:last-child), th:nth-child(2) { width: 34% }
td:nth-child(3), th:nth-child(3) { width: 26% }
thead { display: table-header-group }
tr { break-inside: avoid }
.fail { color: #b00020; font-weight: bold }
.pass { color: #1b6e2e }
.sign { display: flex; gap: 2em; margin-top: 4em }
.sign div { flex: 1; border-top: 1px solid #222; padding-top: .3em }
"""


def text(report: Report) -> str:
    """Return it as text: what failed or was not done in full, and how many passed."""
    lines = [f"{_TITLE}: {report.verdict}", ""]
    lines += [f"{word:16} {said}" for word, said in _head(report)]
    if report.failures:
        lines += ["", "What failed"]
        lines += [line for check in report.failures for line in _lines(check)]
    not_done = [check for check in report.checks if check.verdict == Verdict.NOT_DONE]
    if not_done:
        lines += ["", "What was not done", *_by_reason(not_done)]
    lines += ["", "All checks"]
    for name, checks in report.sections().items():
        passed = sum(check.verdict == Verdict.PASS for check in checks)
        lines.append(f"  {name:16} {passed} of {len(checks)} pass")
    lines += ["", report.verdict]
    blank = "_" * 22
    lines += ["", "   ".join(f"{word}: {blank}" for word in _SIGNATURE)]
    return "\n".join(lines) + "\n"


def _lines(check: Check) -> Iterator[str]:
    yield f"  {check.section}: {check.name}"
    yield f"      expected  {check.expected}"
    yield f"      found     {check.found}"


def _by_reason(checks: list[Check]) -> Iterator[str]:
    """Yield why checks were not done, and how many of each reason."""
    reasons = Counter((check.section, check.found) for check in checks)
    for (section, why), count in reasons.items():
        yield f"  {section}: {count} {'check' if count == 1 else 'checks'}: {why}"


def markdown(report: Report) -> str:
    """Return it as Markdown, with every check."""
    lines = [f"# {_TITLE}: {report.verdict}", "", "| | |", "| --- | --- |"]
    lines += [f"| {word} | {_cell(said)} |" for word, said in _head(report)]
    for heading, checks in _tables(report):
        lines += ["", f"## {heading}", ""]
        lines += ["| verdict | check | expected | found |", "| --- | --- | --- | --- |"]
        for check in checks:
            verdict = f"**{check.verdict}**" if check.verdict == Verdict.FAIL else check.verdict
            cells = (verdict, *map(_cell, (check.name, check.expected, check.found)))
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| name | date | signature |", "| --- | --- | --- |", "| | | |"]
    return "\n".join(lines) + "\n"


def _cell(said: str) -> str:
    return " ".join(said.split()).replace("|", "\\|")


def page(report: Report) -> str:
    """Return it as a page of HTML, with every check, that prints as it is."""
    escaped = html.escape
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escaped(_TITLE)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f'<h1>{escaped(_TITLE)}: <span class="{"pass" if report.passed else "fail"}">'
        f"{report.verdict}</span></h1><table>",
        *(f"<tr><td>{escaped(word)}<td>{escaped(said)}" for word, said in _head(report)),
        "</table>",
    ]
    for heading, checks in _tables(report):
        parts.append(
            f"<h2>{escaped(heading)}</h2><table><thead><tr><th>verdict<th>check"
            "<th>expected<th>found</thead>"
        )
        for check in checks:
            kind = check.verdict.replace(" ", "-")
            cells = "".join(
                f"<td>{escaped(cell)}" for cell in (check.name, check.expected, check.found)
            )
            parts.append(f'<tr><td class="{kind}">{check.verdict}{cells}')
        parts.append("</table>")
    signature = "".join(f"<div>{word}</div>" for word in _SIGNATURE)
    return "\n".join([*parts, f'<div class="sign">{signature}</div></body></html>\n'])


def _tables(report: Report) -> Iterator[tuple[str, list[Check]]]:
    """Yield what failed, if anything, and then every section: heading and checks."""
    if report.failures:
        yield "What failed", report.failures
    for name, checks in report.sections().items():
        yield name.capitalize(), checks


def _head(report: Report) -> Iterator[tuple[str, str]]:
    yield "date", f"{report.started:%Y-%m-%d %H:%M:%S %Z}"
    if report.finished is not None:
        yield "duration", f"{(report.finished - report.started).total_seconds():.0f} s"
    yield "address", report.url
    yield from report.identity.items()
    asked = (f"{word.replace('_', ' ')} {value}" for word, value in report.conditions.items())
    yield "asked for", ", ".join(asked)
    counts = report.counts
    yield "checks", ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def as_json(report: Report) -> str:
    """Return it as a JSON document."""
    return json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"


FORMS: dict[str, Callable[[Report], str]] = {
    ".txt": text,
    ".md": markdown,
    ".html": page,
    ".json": as_json,
}


def check_path(path: str) -> Path:
    """Return where a report goes.

    Raises
    ------
    ValueError
        If there is a file already, no folder for it, or its ending names no form of report.
    """
    place = Path(path).expanduser()
    if place.suffix not in FORMS:
        raise ValueError(f"{path}: a report ends in {', '.join(FORMS)}")
    if place.exists():
        raise ValueError(f"{path} exists, and nothing is overwritten; give another name")
    if not place.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {place.parent}")
    return place


def write(report: Report, path: Path) -> None:
    """Write a report to a new file, in the form that its ending names.

    Raises
    ------
    OSError
        If it cannot be written, or the file exists by now.
    """
    with new_file(path) as file:
        file.write(FORMS[path.suffix](report).encode())
