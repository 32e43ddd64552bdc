"""Every network is the same function in onnxruntime, at any size, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.settings import NetworkSettings, Preprocessing
from hsf_finetune.export.onnx_graph import refuse_fixed_sizes, write_onnx
from hsf_finetune.export.to_onnx import open_session
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.errors import ConfigError
from tests.networks.test_build import SETTINGS

ONNX_SETTINGS = [settings for settings in SETTINGS if settings.name != "swinunetr"]


def largest_error(anatomy: Anatomy, file: Path, how: Preprocessing) -> float:
    """Between probabilities of onnxruntime and of torch, over volumes of odd sizes."""
    write_onnx(file, anatomy, 1, how)
    predict = open_session(file)
    x, y, z = anatomy.divisor
    errors = []
    for shape in ((1, 1, 2 * x - 1, 3 * y, 2 * z + 1), (2, 1, 5, 2 * y + 3, 3 * z)):
        image = torch.randn(shape)
        with torch.inference_mode():
            logits = volume_logits(
                anatomy.network.eval(),
                image,
                anatomy.divisor,
                how.window_vox,
                how.padding,
                how.padded_size,
            )
        errors.append(float((predict(image) - logits.softmax(1)).abs().max()))
    return max(errors)


@pytest.mark.parametrize("settings", ONNX_SETTINGS, ids=lambda s: s.name)
def test_a_fresh_network_is_the_same_function(settings: NetworkSettings, tmp_path: Path) -> None:
    """Many of its tensors are equal to each other."""
    torch.manual_seed(0)
    assert largest_error(build(settings, 1, 3), tmp_path / "fresh.onnx", Preprocessing()) < 1e-3


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(),
        Preprocessing(padding="end"),
        Preprocessing(padding="symmetric"),
        Preprocessing(padding="symmetric", padded_size="window", window_vox=(44, 41, 56)),
    ],
    ids=lambda how: f"{how.padding}-{how.padded_size}",
)
@pytest.mark.parametrize("settings", [ONNX_SETTINGS[1], ONNX_SETTINGS[-1]], ids=lambda s: s.name)
def test_a_trained_network_is_the_same_function(
    settings: NetworkSettings, how: Preprocessing, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    anatomy = build(settings, 1, 3)
    with torch.no_grad():
        for parameter in anatomy.network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert largest_error(anatomy, tmp_path / "trained.onnx", how) < 5e-3


def test_a_network_of_fixed_sizes_is_refused() -> None:
    with pytest.raises(ConfigError, match="swinunetr cannot be written as ONNX"):
        refuse_fixed_sizes("swinunetr")
