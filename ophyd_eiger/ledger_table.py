"""The sums of a ledger's requests, and their table for people."""

from dataclasses import dataclass
from typing import Any

# What for, the verb, and the resource, as in ("stage", "GET", "detector config/count_time").
Kind = tuple[str, str, str]


@dataclass
class RequestSum:
    """What requests of one kind took.

    Attributes
    ----------
    count, failed : int
        How many there were, and how many of them failed.
    seconds, longest : float
        All together, and the longest.
    bytes : int
        Of the replies' bodies.
    """

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    bytes: int = 0
    failed: int = 0


RequestSums = dict[Kind, RequestSum]


def requests_table(sums: RequestSums, *, every: bool) -> str:
    """Return requests by kind, in s, what took longest first.

    Parameters
    ----------
    sums : dict of (str, str, str) to RequestSum
        What for, verb and resource: what they took.
    every : bool
        Whether settings and status values are a line each; else those of a subsystem are one.
    """
    gathered = sums if every else _gathered(sums)
    rows = [
        (kind, f"{verb} {name}", found.count, found.seconds, found.seconds / found.count,
         found.longest, found.bytes, found.failed)
        for (kind, verb, name), found in sorted(
            gathered.items(), key=lambda item: -item[1].seconds
        )
    ]  # fmt: skip
    head = ("for", "request", "count", "total/s", "mean/s", "max/s", "bytes", "failed")
    text = columns(head, rows)
    if len(gathered) < len(sums):
        text += "\n* is several; table(every=True) shows each"
    return text


def _gathered(sums: RequestSums) -> RequestSums:
    """Return the sums with those of several settings, or status values, of a subsystem as one."""
    groups: dict[Kind, list[Kind]] = {}
    for key in sums:
        kind, verb, resource = key
        section, slash, _ = resource.partition("/")
        is_value = slash and section.endswith((" config", " status"))
        groups.setdefault((kind, verb, f"{section}/*") if is_value else key, []).append(key)
    return {
        group if len(keys) > 1 else keys[0]: _added([sums[key] for key in keys])
        for group, keys in groups.items()
    }


def _added(sums: list[RequestSum]) -> RequestSum:
    return RequestSum(
        count=sum(each.count for each in sums),
        seconds=sum(each.seconds for each in sums),
        longest=max(each.longest for each in sums),
        bytes=sum(each.bytes for each in sums),
        failed=sum(each.failed for each in sums),
    )


def columns(head: tuple[str, ...], rows: list[tuple]) -> str:
    """Return rows in columns below their head; numbers stand to the right."""
    cells = [head, *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if isinstance(row_type, str) else cell.rjust(width)
            for cell, width, row_type in zip(row, widths, rows[0] if rows else head, strict=True)
        ).rstrip()
        for row in cells
    )


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
