"""Reads weights that are divided among several files, by the index beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.unreadable import FETCH_AGAIN

_SUFFIX = ".index.json"
_LARGEST_INDEX_BYTES = 64 << 20


def find_index(path: Path) -> Path | None:
    """The index of weights in several files: the path itself, or the only one in a folder.

    Such as `model.safetensors.index.json`, or `pytorch_model.bin.index.json`.
    """
    found = sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]
    is_index = len(found) == 1 and found[0].name.endswith(_SUFFIX) and found[0].is_file()
    return found[0] if is_index else None


def load_shards(index: Path, load: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """The tensors that an index lists, from the files beside it.

    Raises:
        WeightsError: the index is none, a file is missing or lies in another folder, or a
            file lacks a tensor that the index says it has.
    """
    files = _weight_map(index)
    missing = [name for name in sorted(set(files.values())) if not (index.parent / name).is_file()]
    if missing:
        raise WeightsError(
            f"{len(missing)} of {len(set(files.values()))} files of these weights are missing",
            file=index,
            found="no " + ", no ".join(missing[:6]),
            expected="every file that the index names, beside it",
            fix="download or copy the missing files into this folder",
        )
    tensors: dict[str, Any] = {}
    for shard in sorted(set(files.values())):
        content = load(index.parent / shard)
        wanted = [name for name, file in files.items() if file == shard]
        if lacking := [name for name in wanted if name not in content]:
            raise WeightsError(
                "a file of these weights lacks tensors that the index says it has",
                file=index.parent / shard,
                found="no " + ", no ".join(lacking[:6]),
                fix=FETCH_AGAIN,
            )
        tensors |= {name: content[name] for name in wanted}
    return tensors


def digest_of_shards(index: Path) -> str:
    """One SHA-256 for all files that an index names, and the index."""
    files = [index, *(index.parent / name for name in sorted(set(_weight_map(index).values())))]
    digits = "".join(Checksum.of_file(file).digits for file in files)
    return hashlib.sha256(digits.encode()).hexdigest()


# -------------------------------------------------------------------- internals
def _weight_map(index: Path) -> dict[str, str]:
    size = index.stat().st_size
    try:
        content = json.loads(index.read_text("utf-8")) if size < _LARGEST_INDEX_BYTES else None
    except (ValueError, RecursionError):
        content = None
    found = content.get("weight_map") if isinstance(content, dict) else None
    plain = isinstance(found, dict) and all(isinstance(name, str) for name in found.values())
    if not plain or not found:
        raise WeightsError(
            "the file is no index of weights in several files",
            file=index,
            expected='JSON with "weight_map": {name of a tensor: name of its file}',
            fix=FETCH_AGAIN,
        )
    outside = [name for name in found.values() if Path(name).name != name or "\\" in name]
    if outside:
        raise WeightsError(
            "the index names files outside its folder",
            file=index,
            found=outside[0],
            expected="names of files beside it",
            fix="get it from its publisher again",
        )
    return dict(found)
