"""Every network: its blocks, its shapes, and where it counts classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hsf_finetune.config.settings import (
    AnatomixSettings,
    ARUNetSettings,
    BasicUNetSettings,
    DynUNetSettings,
    MonaiUNetSettings,
    NetworkSettings,
    PretrainedSettings,
    PrimusSettings,
    SegResNetSettings,
    UNetSettings,
)
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import BUILDERS, build, class_axes
from hsf_finetune.networks.layers.deep_supervision import supervised_outputs
from hsf_finetune.system.errors import ConfigError
from tests.closeness import assert_equal_up_to_rounding
from tests.networks.small_settings import SETTINGS, every_network, levels_in_training, normalisation


def _smallest(anatomy: Anatomy) -> tuple[int, ...]:
    """The smallest size whose bottleneck has more than one voxel, or two along each axis."""
    times = 2 if isinstance(anatomy.settings, AnatomixSettings) else 1
    x, y, z = anatomy.divisor
    return (times * x, times * y, 2 * z)


def _fits(anatomy: Anatomy, size: tuple[int, ...]) -> bool:
    try:
        logits = anatomy.network(torch.randn(1, 1, *size))
    except (RuntimeError, ValueError):
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
    if normalisation(settings) == "batch":
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
    # The heads of MONAI's own UNet and of Primus are their shallowest decoder.
    up = levels[1:] if isinstance(settings, (MonaiUNetSettings, PrimusSettings)) else levels
    assert [block.name for block in anatomy.blocks] == [
        *[f"encoder{i}" for i in levels],
        "bottleneck",
        *[f"decoder{i}" for i in reversed(up)],
        "head",
    ]


@every_network
@torch.no_grad()
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
    anatomy.network.eval()(torch.randn(1, 1, *_smallest(anatomy)))
    order = [name for name in dict.fromkeys(order) if name != "head"] + ["head"]
    assert order == [block.name for block in anatomy.blocks]
    last = "head" if isinstance(settings, (MonaiUNetSettings, PrimusSettings)) else "decoder1"
    assert extent[last] == _smallest(anatomy)[-1]
    encoders = [extent[block.name] for block in anatomy.encoders]
    assert encoders == sorted(encoders, reverse=True)


@every_network
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_logits_have_the_shape_of_the_image(
    settings: NetworkSettings, training: bool, channels: int
) -> None:
    anatomy = build(settings, channels, 5)
    anatomy.network.train(training)
    given = anatomy.network(torch.randn(2, channels, *_smallest(anatomy)))
    assert type(given) is torch.Tensor
    levels = supervised_outputs(given)
    assert len(levels) == (levels_in_training(settings) if training else 1)
    assert all(logits.shape == (2, 5, *_smallest(anatomy)) for _, logits in levels)


@every_network
def test_every_parameter_of_every_block_gets_a_gradient(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    size = [d if d > 8 else 2 * d for d in anatomy.divisor]
    anatomy.network(torch.randn(2, 1, *size[:2], 2 * anatomy.divisor[2])).square().sum().backward()
    idle = [name for name, p in anatomy.network.named_parameters() if p.grad is None]
    assert not idle


@every_network
def test_a_frozen_trunk_leaves_gradients_to_the_head_alone(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    for block in anatomy.blocks:
        for parameter in block.parameters():
            parameter.requires_grad_(block is anatomy.head)
        block.train(block is anatomy.head)
    anatomy.network(torch.randn(2, 1, *_smallest(anatomy))).square().sum().backward()
    reached = {id(p) for p in anatomy.network.parameters() if p.grad is not None}
    assert reached == {id(p) for p in anatomy.head.parameters()}


@every_network
@torch.no_grad()
def test_other_sizes_than_multiples_do_not_fit(settings: NetworkSettings) -> None:
    if isinstance(settings, BasicUNetSettings):
        pytest.skip("BasicUNet repeats a border voxel where halving lost one")
    anatomy = build(settings, 1, 2)
    anatomy.network.eval()
    x, y, z = (2 * d for d in anatomy.divisor)
    for size in ((x + x // 4, y, z), (x, y, z + 1)):
        assert not _fits(anatomy, size)


def test_defaults_halve_three_times() -> None:
    with torch.device("meta"):
        for settings in (
            UNetSettings(),
            MonaiUNetSettings(),
            DynUNetSettings(),
            SegResNetSettings(),
            ARUNetSettings(),
        ):
            assert build(settings, 1, 2).divisor == (8, 8, 8)


def test_axes_are_halved_apart() -> None:
    anatomy = build(SETTINGS[8], 1, 2)
    assert anatomy.divisor == (4, 8, 4)
    anatomy.network.eval()
    assert _fits(anatomy, (4, 8, 8))
    assert build(MonaiUNetSettings(strides=[2, [1, 1, 2], 2]), 1, 2).divisor == (4, 4, 8)


@every_network
def test_only_the_head_counts_classes(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 4)
    axes = class_axes(settings, 1, 4)
    blocks, state = anatomy.tensor_block(), anatomy.network.state_dict()
    assert {blocks[name] for name in axes} == {"head"}
    assert all(state[name].shape[axis] == 4 for name, own in axes.items() for axis in own)
    if not isinstance(settings, MonaiUNetSettings):
        vectors = anatomy.network.state_dict(keep_vars=True)
        assert len({id(vectors[name]) for name in axes}) == 2 * levels_in_training(settings)


def test_asking_for_class_axes_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    for settings in SETTINGS:
        class_axes(settings, 1, 2)
    assert torch.equal(torch.rand(1), expected)


@torch.no_grad()
@every_network
def test_what_is_added_to_a_logit_bias_is_added_to_the_logits(settings: NetworkSettings) -> None:
    anatomy = build(settings, 1, 3)
    network = anatomy.network.eval()
    image = torch.randn(1, 1, *_smallest(anatomy))
    before = network(image)
    names = anatomy.logit_biases()
    assert names <= class_axes(settings, 1, 3).keys()
    shift = torch.tensor([1.0, -2.0, 0.5])
    state = network.state_dict()
    for name in names:
        state[name].add_(shift)
    assert_equal_up_to_rounding(network(image), before + shift.reshape(3, 1, 1, 1))
    network.train()
    assert len(names) == levels_in_training(settings)


@torch.no_grad()
@pytest.mark.parametrize("settings", [s for s in SETTINGS if isinstance(s, MonaiUNetSettings)])
def test_weights_of_a_class_are_summed_over_where_the_anatomy_says(
    settings: NetworkSettings,
) -> None:
    anatomy = build(settings, 1, 3)
    axes, summed = class_axes(settings, 1, 3), anatomy.summed_axes()
    state = anatomy.network.state_dict()
    for name in axes:
        if name in summed and summed[name] in axes[name]:
            state[name].select(summed[name], 1).zero_()
    # Nothing reads class 1 any more, so what it is made of moves it alone.
    image = torch.randn(1, 1, *_smallest(anatomy))
    network = anatomy.network.eval()
    before = network(image)
    first = next(n for n in axes if state[n].dim() == 5 and axes[n] == (1 - summed[n],))
    state[first].select(1 - summed[first], 1).mul_(2.0)
    after = network(image)
    if "instance" not in normalisation(settings):
        assert not torch.allclose(after[:, 1], before[:, 1])
    assert_equal_up_to_rounding(after[:, [0, 2]], before[:, [0, 2]])


def test_dropout_leaves_the_logits_alone() -> None:
    settings = DynUNetSettings(
        channels=[4, 8, 8, 8], dropout=0.9, deep_supervision=True, deep_supr_num=2
    )
    anatomy = build(settings, 1, 2)
    layers = [layer for module in anatomy.head.modules for layer in module.modules()]
    assert not [layer for layer in layers if isinstance(layer, nn.Dropout)]


def test_a_network_that_is_still_open_is_not_built() -> None:
    with pytest.raises(ConfigError, match="models=pretrained takes the network from"):
        build(PretrainedSettings(), 1, 2)
