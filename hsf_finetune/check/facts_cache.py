"""Facts of cases whose files have not changed, so that the second look is instant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hsf_finetune.check.facts import Facts
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.files import atomic_write, cache_folder

_FORMAT = 2
"""Raised whenever the check of a case changes, so that stale facts are not read."""


def fingerprint(case: Case) -> str | None:
    """Changes with the files (path, size, times of change) and what the labels mean.

    None where a file is missing, of which nothing should be remembered.
    """
    files = []
    for ref in case.volumes:
        try:
            stat = ref.path.stat()
        except OSError:
            return None
        files.append(
            [str(ref), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, ref.spacing_mm, ref.affine]
        )
    protocol = [[value, sorted(names)] for value, names in case.protocol.sets]
    text = json.dumps([_FORMAT, case.name, files, protocol, case.protocol.row_names])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def remembered(cases: Sequence[Case], keys: Collection[str | None]) -> dict[str, Facts]:
    """Facts of an earlier look at cases of these datasets.

    Args:
        cases: any of them.
        keys: the fingerprints that are asked for.

    Returns:
        Fingerprint -> facts, for those that are known.
    """
    found: dict[str, Facts] = {}
    try:
        with _file(cases).open(encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                key, plain = json.loads(line)
                if key in keys:
                    found[key] = Facts.from_dict(plain)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return found  # nothing there, or a damaged copy of what can be found out again
    return found


def remember(cases: Sequence[Case], facts: Mapping[str, Facts]) -> None:
    """Keeps the facts, a line each; a cache that cannot be written is no reason to stop."""
    try:
        with (
            atomic_write(_file(cases)) as temp,
            temp.open("w", encoding="utf-8", errors="surrogateescape") as file,
        ):
            for key, fact in facts.items():
                file.write(json.dumps([key, fact.to_dict()], ensure_ascii=False) + "\n")
    except OutputError:
        return


def _file(cases: Sequence[Case]) -> Path:
    """One file for the cases of these datasets and folders, whatever their number."""
    folders = sorted({f"{case.dataset}:{case.images[0].path.parent.parent}" for case in cases})
    first = folders[0] if folders else ""
    name = hashlib.sha256(f"{first}:{len(folders) > 1}".encode()).hexdigest()[:16]
    return cache_folder() / "check" / f"{name}.jsonl"
