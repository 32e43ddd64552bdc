"""Networks that segment at several levels in training."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from hsf_finetune.config.settings import DynUNetSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.networks.layers.deep_supervision import supervised_outputs
from tests.closeness import assert_equal_up_to_rounding


def _deep(num: int = 2) -> Anatomy:
    torch.manual_seed(0)
    return build(
        DynUNetSettings(channels=[4, 8, 8, 8], deep_supervision=True, deep_supr_num=num), 1, 3
    )


@torch.no_grad()
def test_the_finest_level_comes_first_and_is_what_evaluation_gives() -> None:
    anatomy, image = _deep(), torch.randn(2, 1, 16, 16, 16)
    expected = anatomy.network.eval()(image)
    levels = anatomy.network.train()(image)
    assert levels.shape == (2, 3, 3, 16, 16, 16)
    assert_equal_up_to_rounding(levels[:, 0], expected)
    for level, factor in ((1, 2), (2, 4)):
        coarse = levels[:, level, :, ::factor, ::factor, ::factor]
        for axis in (2, 3, 4):
            coarse = coarse.repeat_interleave(factor, dim=axis)
        assert torch.equal(levels[:, level], coarse)


def test_each_level_weighs_half_of_the_finer_one() -> None:
    logits = torch.randn(2, 3, 5, 4, 4, 4)
    shares, levels = zip(*supervised_outputs(logits), strict=True)
    assert shares == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert all(torch.equal(level, logits[:, i]) for i, level in enumerate(levels))
    ((share, only),) = supervised_outputs(logits[:, 0])
    assert share == 1
    assert torch.equal(only, logits[:, 0])


def test_every_head_learns_and_the_network_can_be_copied_after_a_step() -> None:
    anatomy = _deep()
    network = anatomy.network
    network(torch.randn(2, 1, 16, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in anatomy.head.parameters())
    twin, image = deepcopy(network).train(), torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1.5)
        assert not torch.equal(twin(image)[:, 1:], network(image)[:, 1:])
        twin.load_state_dict(network.state_dict())
        assert torch.equal(twin(image), network(image))


def test_heads_that_a_network_has_no_level_for_are_refused() -> None:
    with pytest.raises(ValueError, match="deep_supr_num must be at most two fewer"):
        DynUNetSettings(channels=[4, 8, 8], deep_supervision=True, deep_supr_num=2)
