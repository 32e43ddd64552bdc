"""A model that nnU-Net v1 itself has written gives the logits of nnU-Net v1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hsf_finetune.weights.sources.read_source import read_source
from tests.export.test_clients import environment, run
from tests.weights.sources.test_nnunet_v1 import loaded

pytestmark = pytest.mark.clients


def test_logits_are_those_of_nnunet_v1(tmp_path: Path) -> None:
    """Its network is transposed and anisotropic; nnunet 1.7.1 writes both files."""
    script = Path(__file__).with_name("run_nnunet_v1.py")
    run(environment("NNUNET_V1") / "python", script, tmp_path)
    source = read_source(tmp_path / "model")
    assert (source.models or {})["orientation"] == "ASR"
    with np.load(tmp_path / "logits.npz") as found, torch.inference_mode():
        # Its input has axes (y, z, x).
        image = torch.from_numpy(found["image"]).permute(0, 1, 4, 2, 3)
        expected = torch.from_numpy(found["logits"]).permute(0, 1, 4, 2, 3)
        torch.testing.assert_close(loaded(source)(image), expected, rtol=0, atol=1e-4)
