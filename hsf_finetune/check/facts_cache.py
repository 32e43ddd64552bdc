"""Facts of cases whose files have not changed, so that a second check does not read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hsf_finetune.check.case_facts import CaseFacts
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.system.atomic_files import atomic_write, cache_folder
from hsf_finetune.system.errors import OutputError

_FORMAT = 3
"""Raised whenever the check of a case changes, so that outdated facts are not read."""


def fingerprint(case: Case) -> str | None:
    """Changes with the files (path, size, times of change) and the meaning of the labels.

    None where a file is missing: nothing should be kept of such a case.
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


def load_facts(cases: Sequence[Case], keys: Collection[str | None]) -> dict[str, CaseFacts]:
    """Facts that an earlier check kept of cases of these datasets.

    Args:
        cases: any of them.
        keys: the fingerprints to load.

    Returns:
        Fingerprint -> facts, for those that are in the cache.
    """
    found: dict[str, CaseFacts] = {}
    try:
        with _file(cases).open(encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                key, plain = json.loads(line)
                if key in keys:
                    found[key] = CaseFacts.from_dict(plain)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return found  # no cache yet, or a damaged one: the cases are read again
    return found


def save_facts(cases: Sequence[Case], facts: Mapping[str, CaseFacts]) -> None:
    """Keeps the facts, one line each; a cache that cannot be written is no reason to stop."""
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
