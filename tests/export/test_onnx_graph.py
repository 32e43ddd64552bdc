"""Every network is the same function in onnxruntime, at any size, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.settings import NetworkSettings, Preprocessing
from hsf_finetune.export.onnx_graph import (
    open_session,
    refuse_fixed_sizes,
    require_any_size,
    write_onnx,
)
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.transfer.match_names import pair_by_name
from tests.export.models import VALUES
from tests.networks.small_settings import SETTINGS

BY_NAME = {settings.name: settings for settings in SETTINGS if settings.name != "swinunetr"}
DEPENDING_ON_SIZES = [s for s in SETTINGS if s.name == "resnet_unet" and s.depth == 18]
"""Their shortcuts are filled up with zeros, of which tracing fixes the size."""
OTHERS = [s for s in SETTINGS if getattr(s, "deep_supervision", False) and s.name != "nnunet"]


def largest_error(
    anatomy: Anatomy, settings: NetworkSettings, file: Path, how: Preprocessing
) -> float:
    """Between probabilities of onnxruntime and of torch, over volumes of odd sizes."""
    write_onnx(file, anatomy, ModelCard(tuple(VALUES), VALUES, settings, 1, how))
    predict = open_session(file)
    x, y, z = anatomy.divisor
    errors = []
    for shape in ((1, 1, 2 * x - 1, 3 * y, 2 * z + 1), (2, 1, 5, 2 * y + 3, 3 * z)):
        image = torch.randn(shape)
        with torch.inference_mode():
            logits = volume_logits(anatomy.network.eval(), image, anatomy.divisor, how)
        errors.append(float((predict(image) - logits.softmax(1)).abs().max()))
    return max(errors)


@pytest.mark.parametrize("settings", [*BY_NAME.values(), *OTHERS], ids=lambda s: s.name)
def test_a_fresh_network_is_the_same_function_or_refused(
    settings: NetworkSettings, tmp_path: Path
) -> None:
    """Many of its tensors are equal to each other; all of them are read back under their names."""
    torch.manual_seed(0)
    anatomy, file = build(settings, 1, 3), tmp_path / "a.onnx"
    card = ModelCard(tuple(VALUES), VALUES, settings, 1)
    write_onnx(file, anatomy, card)
    if settings in DEPENDING_ON_SIZES:
        with pytest.raises(ConfigError, match=f"models={settings.name} cannot be written"):
            require_any_size(anatomy, card, open_session(file), card.preprocessing)
        return
    require_any_size(anatomy, card, open_session(file), card.preprocessing)
    found = read_checkpoint(file)
    assert found.meta is not None
    again = build(ModelCard.from_dict(found.meta).models, 1, 3)
    pairs = pair_by_name(again.network, found.tensors)
    assert not [name for name in pairs.target if pairs.mismatch(name)]
    with torch.no_grad():
        for name, tensor in pairs.target.items():
            tensor.copy_(pairs.source[name])
    image = torch.randn(1, 1, *(2 * n for n in padded_shape((1, 1, 1), anatomy.divisor)))
    with torch.inference_mode():
        expected = anatomy.network.eval()(image)
        torch.testing.assert_close(again.network.eval()(image), expected, rtol=0, atol=0)


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
@pytest.mark.parametrize("settings", [BY_NAME["unet"], BY_NAME["arunet"]], ids=lambda s: s.name)
def test_a_trained_network_is_the_same_function(
    settings: NetworkSettings, how: Preprocessing, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    anatomy = build(settings, 1, 3)
    with torch.no_grad():
        for parameter in anatomy.network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    assert largest_error(anatomy, settings, tmp_path / "trained.onnx", how) < 5e-3


def test_a_network_of_fixed_sizes_is_refused() -> None:
    with pytest.raises(ConfigError, match="models=swinunetr cannot be written"):
        refuse_fixed_sizes("swinunetr")
