"""Kinds of faults from public bug reports, tried on small inputs through the real commands.

    python benchmarks/field_reports.py
    python benchmarks/field_reports.py --kinds laterality 'fill values' --verbose

Each kind makes its inputs, runs the command that a user would run, and looks at the result. `right` is a
right result, or a warning that says what is unusual; `refused` is a clear message; `silent wrong` is a wrong
result without a word, or a traceback. The last column is 0 in every row, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from field import folders, hostile, hostile_texts, labels, runs, unseen, weights
from field.workbench import KINDS, Workbench
from rows import show, write

MODULES = (folders, hostile, hostile_texts, labels, runs, unseen, weights)
"""They register their kinds when they are imported."""


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    runs.KILLS = options.kills
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(Path(folder))
        for name in options.kinds or KINDS:
            started = time.monotonic()
            count: Counter[str] = Counter()
            for attempt in KINDS[name](bench):
                count[attempt.outcome] += 1
                if attempt.outcome == "wrong" or options.verbose:
                    print(f"{attempt.outcome:8} {name}: {attempt.name}: {attempt.note}", flush=True)
            row: dict[str, object] = {
                "kind": name,
                "tried": count.total(),
                "right": count["right"],
                "refused clearly": count["refused"],
                "silent wrong": count["wrong"],
                "s": round(time.monotonic() - started),
            }
            rows.append(row)
            print(*(f"{key} {value}" for key, value in row.items()), sep=", ", flush=True)
    show("Field reports", rows)
    write(options.json, rows)
    return int(any(row["silent wrong"] for row in rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), help="instead of all")
    parser.add_argument("--kills", type=int, default=runs.KILLS, help="of the kind `kills`")
    parser.add_argument("--verbose", action="store_true", help="print every attempt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
