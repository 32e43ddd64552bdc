"""Every network: its blocks, its shapes, and where it counts classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import BUILDERS, build, class_axes
from hsf_finetune.settings import (
    ARUNetHparams,
    ARUNetSettings,
    DynUNetSettings,
    NetworkSettings,
    SegResNetSettings,
    UNetSettings,
)

SETTINGS: list[NetworkSettings] = [
    UNetSettings(),
    UNetSettings(channels=[4, 8], strides=[2], features=6, num_res_units=0, norm="batch"),
    UNetSettings(channels=[4, 8, 8, 8, 8], strides=[2, 1, 2, 2], norm="group", dropout=0.2),
    UNetSettings(channels=[3, 5, 9], strides=[3, 2], features=2, num_res_units=1, norm="group"),
    DynUNetSettings(),
    DynUNetSettings(channels=[4, 8, 8], norm="batch", residual=True, dropout=0.2),
    DynUNetSettings(channels=[4, 8, 8, 8, 8], norm="group"),
    SegResNetSettings(),
    SegResNetSettings(init_filters=4, blocks_down=[1, 1], blocks_up=[2], norm="instance"),
    SegResNetSettings(
        init_filters=4, blocks_down=[2, 1, 1], blocks_up=[1, 1], norm="batch", dropout=0.2
    ),
    ARUNetSettings(hparams=ARUNetHparams(f_maps=4)),
    ARUNetSettings(hparams=ARUNetHparams(f_maps=3, num_levels=2, use_attention=False)),
]


def _norm(settings: NetworkSettings) -> str:
    return getattr(settings, "norm", "switch")


every_network = pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda s: f"{s.name}-{_norm(s)}-{SETTINGS.index(s)}"
)


def _smallest(anatomy: Anatomy) -> tuple[int, ...]:
    """The smallest size whose bottleneck has more than one voxel."""
    return (*anatomy.divisor[:2], 2 * anatomy.divisor[2])


def _fits(anatomy: Anatomy, size: tuple[int, ...]) -> bool:
    try:
        logits = anatomy.network(torch.randn(1, 1, *size))
    except RuntimeError:
        return False
    return tuple(logits.shape[2:]) == size


def test_every_builder_is_tested() -> None:
    assert {settings.name for settings in SETTINGS} == set(BUILDERS)


@every_network
def test_blocks_partition_the_state_by_identity(settings: NetworkSettings) -> None:
    anatomy = build(settings, 2, 3)
    for kind in ("parameters", "buffers"):
        owned = [id(t) for block in anatomy.blocks for t in getattr(block, kind)()]
        assert len(owned) == len(set(owned))
        assert set(owned) == {id(t) for t in getattr(anatomy.network, kind)()}
    if _norm(settings) == "batch":
        assert all(block.buffers() for block in anatomy.encoders)
    assert set(anatomy.tensor_block()) == set(anatomy.network.state_dict())


@every_network
def test_blocks_own_every_layer_that_behaves_otherwise_in_training(
    settings: NetworkSettings,
) -> None:
    anatomy = build(settings, 1, 3)
    kinds = (nn.Dropout, nn.Dropout3d, nn.modules.batchnorm._NormBase)
    anatomy.network.train()
    for block in anatomy.blocks:
        block.train(False)
    assert not [m for m in anatomy.network.modules() if isinstance(m, kinds) and m.training]


@every_network
def test_blocks_are_named_by_level_in_the_order_of_the_data(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    levels = range(1, len(anatomy.encoders) + 1)
    assert [block.name for block in anatomy.blocks] == [
        *[f"encoder{i}" for i in levels],
        "bottleneck",
        *[f"decoder{i}" for i in reversed(levels)],
        "head",
    ]


@every_network
def test_data_passes_the_blocks_in_order_and_at_its_level(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    order: list[str] = []
    extent: dict[str, int] = {}

    def note(name: str) -> object:
        def hook(_: nn.Module, inputs: object, output: torch.Tensor) -> None:
            order.append(name)
            extent[name] = output.shape[-1]

        return hook

    for block in anatomy.blocks:
        for module in block.modules:
            module.register_forward_hook(note(block.name))  # type: ignore[arg-type]
    anatomy.network(torch.randn(2, 1, *_smallest(anatomy)))
    assert list(dict.fromkeys(order)) == [block.name for block in anatomy.blocks]
    assert extent["decoder1"] == _smallest(anatomy)[-1]
    encoders = [extent[block.name] for block in anatomy.encoders]
    assert encoders == sorted(encoders, reverse=True)


@every_network
@pytest.mark.parametrize("training", [True, False])
def test_logits_have_the_shape_of_the_image(settings: NetworkSettings, training: bool) -> None:
    anatomy = build(settings, 2, 5)
    anatomy.network.train(training)
    logits = anatomy.network(torch.randn(2, 2, *_smallest(anatomy)))
    assert type(logits) is torch.Tensor
    assert logits.shape == (2, 5, *_smallest(anatomy))


@every_network
def test_every_parameter_of_every_block_gets_a_gradient(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    size = [2 * n for n in anatomy.divisor]
    anatomy.network(torch.randn(2, 1, *size)).square().sum().backward()
    idle = [name for name, p in anatomy.network.named_parameters() if p.grad is None]
    assert not idle


@every_network
def test_other_sizes_than_multiples_do_not_fit(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 2)
    anatomy.network.eval()
    x, y, z = _smallest(anatomy)
    for size in ((x + x // 2, y, z), (x, y, z + 1)):
        assert not _fits(anatomy, size)


def test_defaults_halve_three_times() -> None:
    with torch.device("meta"):
        for settings in (UNetSettings(), DynUNetSettings(), SegResNetSettings(), ARUNetSettings()):
            assert build(settings, 1, 2).divisor == (8, 8, 8)


@every_network
def test_only_the_head_counts_classes(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 4)
    axes = class_axes(settings, 1, 4)
    blocks, state = anatomy.tensor_block(), anatomy.network.state_dict()
    assert {blocks[name] for name in axes} == {"head"}
    assert len(axes) == 2
    assert all(state[name].shape[axis] == 4 for name, own in axes.items() for axis in own)


def test_asking_for_class_axes_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    for settings in SETTINGS:
        class_axes(settings, 1, 2)
    assert torch.equal(torch.rand(1), expected)


def test_dropout_leaves_the_logits_alone() -> None:
    anatomy = build(DynUNetSettings(channels=[4, 8, 8], dropout=0.9), 1, 2)
    layers = [layer for module in anatomy.head.modules for layer in module.modules()]
    assert not [layer for layer in layers if isinstance(layer, nn.Dropout)]
