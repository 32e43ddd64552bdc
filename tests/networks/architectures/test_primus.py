"""Primus takes images of other sizes than its positions are learned for."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from hsf_finetune.config.settings import PrimusSettings
from hsf_finetune.networks.architectures.primus import Primus
from tests.closeness import NETWORK, assert_equal_up_to_rounding

SMALL = {"embed_dim": 24, "depth": 4, "num_heads": 2, "decoder_channels": [4, 3]}


@torch.no_grad()
def test_positions_are_interpolated_and_distances_kept() -> None:
    torch.manual_seed(0)
    large = Primus(PrimusSettings(image_size=[32, 16, 16], **SMALL), 1, 2).eval()
    small = Primus(PrimusSettings(image_size=[16, 16, 24], **SMALL), 1, 2).eval()
    state = large.state_dict()
    grid = state["eva.pos_embed"].transpose(1, 2).reshape(1, 24, 4, 2, 2)
    between = interpolate(grid, (2, 2, 3), mode="trilinear").flatten(2).transpose(1, 2)
    small.load_state_dict(state | {"eva.pos_embed": between})
    image = torch.randn(2, 1, 16, 16, 24)
    assert_equal_up_to_rounding(large(image), small(image), NETWORK)
