"""What check says of weights whose own program could be compared with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsf_finetune.planning.prove_source import _text, _unknown_names
from hsf_finetune.weights.sources.kept_proof import is_compared, keep_proof, proof_text
from hsf_finetune.weights.sources.read_source import read_source

STORED = Path(__file__).parents[1] / "weights" / "stored" / "nnunet"
[FOLDER] = (path for path in (STORED / "plain").iterdir() if path.is_dir())


class _Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_nnunet_is_started_for_arrays_and_numbers_alone(tmp_path: Path) -> None:
    assert _unknown_names(FOLDER / "fold_0" / "checkpoint_final.pth") == []
    torch.save({"network_weights": {}, "best": np.float64(1)}, tmp_path / "fine.pth")
    assert _unknown_names(tmp_path / "fine.pth") == []
    torch.save({"network_weights": {}, "logging": _Command()}, tmp_path / "hostile.pth")
    assert _unknown_names(tmp_path / "hostile.pth") == ["posix.system"]


def test_what_was_found_is_kept_for_later_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path))
    source = read_source(FOLDER)
    assert "not compared with nnU-Net's own" in proof_text(source)
    ours = np.zeros((4, 5, 10), np.uint8)
    theirs = ours.copy()
    theirs[0, 0, :2] = 1
    keep_proof(source, _text(ours, theirs, "sub-01"))
    assert is_compared(source)
    assert proof_text(source).startswith("99.000% of the voxels of sub-01 (4 x 5 x 10, 2 of them")
