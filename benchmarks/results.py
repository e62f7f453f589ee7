"""Where the benchmarks' tables go: to the terminal and, with `--write`, into README.md here."""

import argparse
from pathlib import Path

README = Path(__file__).with_name("README.md")


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark be told to keep its table."""
    parser.add_argument("--write", action="store_true", help=f"put the table into {README.name}")


def show(table: str, benchmark: str, *, write: bool) -> None:
    """Print a benchmark's table and, if it is to be kept, put it in place of the one before."""
    print(table)
    if not write:
        return
    begin, end = f"<!-- {benchmark} -->\n", f"<!-- /{benchmark} -->\n"
    before, _, rest = README.read_text().partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(f"{before}{begin}{table}{end}{after}")
