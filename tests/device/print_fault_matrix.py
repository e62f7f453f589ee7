"""The fault matrix as a table: python print_fault_matrix.py JUNIT.xml > docs/fault_matrix.md.

The file is that of `pytest tests/device/test_fault_matrix.py -o junit_family=legacy
--junitxml=JUNIT.xml`, whole.
"""

import collections
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from fault_cell import FAULTS, PHASES

HEAD = """# What becomes of a scan when something fails

A scan of three points, two images each, armed once (`step`) or flown (`fly`), with each fault of
the simulated DCU striking as the phase begins, on an EIGER and on an EIGER2. In each cell: how many
points are in the run with the right images once what was owed has been fetched, and what was
raised. Where the cells of both generations or both ways differ they stand one above the other. Of
all {cells} it holds, and is tested, that nothing hangs, that no image is wrong, that what the DCU
has finished is home or named as owed, that points are missing only with an error that says so, that
the next scan in the same process is right, and that no thread or connection is left.
`file-corrupt` is that of the first block's length (`offset=12`); counts that are damaged within a
block come home as they are, and reading names the image, unless `delete_on_dcu` has each unpacked.
"""


def main() -> None:
    cells: dict[tuple[str, str], dict[str, list[str]]] = collections.defaultdict(dict)
    count = 0
    for case in ET.parse(sys.argv[1]).iter("testcase"):
        match = re.fullmatch(
            r"test_nothing\w+\[(.+)-(eiger2?-500k)-(step|fly)\]", case.get("name") or ""
        )
        if not match:
            continue
        count += 1
        phase = next(phase for phase in PHASES if match[1].endswith(f"-{phase}"))
        fault = match[1].removesuffix(f"-{phase}")
        found = case.find("properties/property[@name='outcome']")
        outcome = "not known" if found is None else str(found.get("value"))
        cells[fault, phase].setdefault(outcome, []).append(f"{match[3]} {match[2][:6].strip('-')}")
    lines = [HEAD.format(cells=count), "| fault | " + " | ".join(PHASES) + " |"]
    lines.append("|---" * (len(PHASES) + 1) + "|")
    for fault in FAULTS:
        row = []
        for phase in PHASES:
            outcomes = cells[fault, phase]
            shown = [
                outcome if len(outcomes) == 1 else f"{outcome} ({', '.join(where)})"
                for outcome, where in outcomes.items()
            ]
            row.append("<br>".join(shown))
        lines.append(f"| `{fault}` | " + " | ".join(row) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
