"""Blocks partition the network, and a wrong description is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hsf_finetune.networks.anatomy import Anatomy, Block


def _parts() -> tuple[nn.Sequential, tuple[nn.Module, ...]]:
    layers = (
        nn.Conv3d(1, 2, 1),
        nn.BatchNorm3d(2),
        nn.Conv3d(2, 2, 1),
        nn.Conv3d(2, 2, 1),
        nn.Conv3d(2, 3, 1),
    )
    return nn.Sequential(*layers), layers


def _anatomy(network: nn.Module, encoder: tuple[nn.Module, ...], rest: list[nn.Module]) -> Anatomy:
    bottleneck, decoder, head = rest
    return Anatomy(
        network,
        (Block("encoder1", encoder),),
        Block("bottleneck", (bottleneck,)),
        (Block("decoder1", (decoder,)),),
        Block("head", (head,)),
        (1, 1, 1),
    )


def test_names_of_parameters_and_buffers_lead_to_their_block() -> None:
    network, (conv, norm, *rest) = _parts()
    anatomy = _anatomy(network, (conv, norm), rest)
    assert [block.name for block in anatomy.blocks] == [
        "encoder1",
        "bottleneck",
        "decoder1",
        "head",
    ]
    assert anatomy.tensor_block()["0.weight"] == "encoder1"
    assert anatomy.tensor_block()["1.running_mean"] == "encoder1"
    assert anatomy.head.size == 2 * 3 + 3
    assert anatomy.block_names.all == ("encoder1", "bottleneck", "decoder1", "head")


def test_tensor_in_no_block_is_named() -> None:
    network, (conv, _, *rest) = _parts()
    with pytest.raises(ValueError, match=r"'1\.weight' is in no block.*'1\.running_mean'"):
        _anatomy(network, (conv,), rest)


def test_tensor_in_two_blocks_is_named() -> None:
    network, (conv, norm, *rest) = _parts()
    with pytest.raises(ValueError, match=r"'2\.weight' is in encoder1 and bottleneck"):
        _anatomy(network, (conv, norm, rest[0]), rest)


def test_foreign_and_empty_blocks_are_refused() -> None:
    network, (conv, norm, *rest) = _parts()
    with pytest.raises(ValueError, match="'encoder1' has a tensor that the network has not"):
        _anatomy(network, (conv, norm, nn.Linear(1, 1)), rest)
    with pytest.raises(ValueError, match="'head' has no parameters"):
        _anatomy(network, (conv, norm, rest[2]), [*rest[:2], nn.ReLU()])


def test_equal_values_are_not_taken_for_the_same_tensor() -> None:
    network, (conv, norm, *rest) = _parts()
    for tensor in network.parameters():
        nn.init.zeros_(tensor)
    anatomy = _anatomy(network, (conv, norm), rest)
    assert sum(len(block.parameters()) for block in anatomy.blocks) == len([*network.parameters()])


def test_a_shared_parameter_counts_once() -> None:
    network, (conv, norm, *rest) = _parts()
    conv.bias = norm.bias
    anatomy = _anatomy(network, (conv, norm), rest)
    assert len(anatomy.encoders[0].parameters()) == 3
    assert set(anatomy.tensor_block()) == set(network.state_dict())


def test_training_mode_of_one_block_leaves_the_others() -> None:
    network, (conv, norm, *rest) = _parts()
    anatomy = _anatomy(network, (conv, norm), rest)
    network.train()
    anatomy.encoders[0].train(False)
    before = torch.clone(norm.running_mean)  # type: ignore[arg-type]
    network(torch.randn(2, 1, 3, 3, 3))
    assert torch.equal(before, norm.running_mean)  # type: ignore[arg-type]
    assert rest[0].training
