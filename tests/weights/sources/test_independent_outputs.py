"""Sigmoid outputs keep their odds beside the background that they get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.weights.sources.independent_outputs import with_background
from hsf_finetune.weights.transfer.match_names import pair_by_name
from tests.closeness import assert_equal_up_to_rounding
from tests.weights.small_networks import SETTINGS, fresh, image, random_network, saved

REGIONS = ("whole", "core", "rim")
KINDS = ("monai_unet", "nnunet", "segresnet", "dynunet")
"""With one head or several, and with a last block of as many channels as classes."""


@torch.no_grad()
@pytest.mark.parametrize("settings", [s for s in SETTINGS if s.name in KINDS], ids=lambda s: s.name)
def test_the_background_has_logit_0_and_the_others_their_own(
    settings: NetworkSettings, tmp_path: Path
) -> None:
    source = random_network(settings, len(REGIONS), seed=1)
    checkpoint = saved(tmp_path, source, REGIONS)
    described = replace(checkpoint, models=settings.model_dump(mode="json"), in_channels=1)
    found = with_background(described)
    assert found.classes == ("background", *REGIONS)
    ours = fresh(settings, found.classes)
    pairs = pair_by_name(ours.network, found.tensors)
    assert not [name for name in pairs.target if pairs.mismatch(name)]
    for name, tensor in pairs.target.items():
        tensor.copy_(pairs.source[name])
    given = image(source).float()
    theirs, logits = source.network.float()(given), ours.network(given)
    assert_equal_up_to_rounding(logits[:, 1:], theirs, 3000)
    assert_equal_up_to_rounding(logits[:, 0], torch.zeros_like(logits[:, 0]), scale=1.0)
