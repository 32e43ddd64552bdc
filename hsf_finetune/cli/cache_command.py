"""List what the user's cache holds, and remove what is no longer used.

What can be made again (prepared cases, facts about scans, graphs, demo models) is removed by
itself when it was not used for 60 days. --prune DAYS removes it earlier; --only chooses the kinds,
which is the only way to remove downloaded weights and accepted licences.
"""

from __future__ import annotations

import argparse

from hsf_finetune.cli.number_options import number_from_zero
from hsf_finetune.system.cache import KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--prune",
        type=number_from_zero("days"),
        metavar="DAYS",
        help="remove what was not used for so many days (0: everything)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=[kind.folder for kind in KINDS], default=[], metavar="KIND"
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from rich.text import Text

    from hsf_finetune.system.atomic_files import cache_folder
    from hsf_finetune.system.cache import list_entries, prune
    from hsf_finetune.system.console import TitledTable, console, say

    chosen = [kind for kind in KINDS if not options.only or kind.folder in options.only]
    if options.prune is not None:
        removable = [kind for kind in chosen if kind.is_remade or options.only]
        count, size = prune(removable, options.prune)
        say(f"removed: {count}, {size / 1e6:.1f} MB")
    table = TitledTable(f"Cache: {cache_folder()}")
    for heading in ("kind", "holds", "entries", "MB", "days since last used"):
        table.add_column(heading, justify="left" if heading in ("kind", "holds") else "right")
    for kind in chosen:
        found = list_entries(kind)
        days = sorted(round(entry.unused_days) for entry in found)
        table.add_row(
            kind.folder,
            Text(kind.what),
            str(len(found)),
            f"{sum(entry.size_bytes for entry in found) / 1e6:.1f}",
            " to ".join(dict.fromkeys(map(str, (days[0], days[-1])))) if days else "-",
        )
    console.print(table)
    return 0
