"""No weights are accepted that would compute another function, whichever setting differs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.settings import AnatomixSettings, ModelSettings, NetworkSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import BUILDERS, class_axes
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.read_source import read_source
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.receipt import Receipt
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.weights.small_networks import SOURCE, fresh, logits, random_network, saved

DEFAULTS: dict[str, dict[str, Any]] = {
    "unet": {"channels": [4, 8, 8], "strides": [2, 2], "features": 4},
    "monai_unet": {"channels": [4, 8, 8], "strides": [2, 2]},
    "basicunet": {"features": [4, 4, 8, 8, 8, 4]},
    "dynunet": {"channels": [4, 8, 8, 8]},
    "segresnet": {"init_filters": 8, "blocks_down": [1, 2, 2], "blocks_up": [1, 1]},
    "swinunetr": {"feature_size": 12, "num_heads": [1, 2, 2, 2], "window_size": [3, 3, 2]},
    "arunet": {"hparams": {"f_maps": 4, "num_levels": 3}},
    "nnunet": {"features_per_stage": [4, 8, 8]},
    "segresnet_ds": {"init_filters": 8, "blocks_down": [1, 2, 2], "blocks_up": [1, 1]},
    "unetr": {"feature_size": 2, "hidden_size": 8, "mlp_dim": 4, "num_heads": 2, "image_size": 32},
    "mednext": {"init_filters": 2, "blocks_down": [1, 1], "blocks_up": [1, 1]},
    "resnet_unet": {"depth": 10, "width": 2, "decoder_channels": [4, 4, 4, 2, 2]},
    "stunet": {"features_per_stage": [2, 3, 4]},
    "suprem_unet": {"width": 2},
    "anatomix": {"width": 2, "halvings": 2, "features": 3},
    "rsunet": {"channels": [2, 4, 4]},
    "primus": {"embed_dim": 24, "depth": 4, "num_heads": 2, "image_size": 16},
}
CHANGES: dict[str, list[dict[str, Any]]] = {
    "unet": [
        *({"channels": widths} for widths in ([4, 8, 16], [8, 8, 8])),
        *({"channels": [4] + [8] * n, "strides": [2] * n} for n in (1, 3)),
        *({"strides": strides} for strides in ([1, 2], [2, 1], [3, 2])),
        *({"num_res_units": units} for units in (0, 1, 3)),
        *({"norm": norm} for norm in ("batch", "group", "instance_plain")),
        *({"features": 8}, {"dropout": 0.1}),
    ],
    "monai_unet": [
        *({"channels": widths} for widths in ([4, 8, 16], [8, 8, 8])),
        *({"channels": [4] + [8] * n, "strides": [2] * n} for n in (2, 3)),
        *({"strides": strides} for strides in ([1, 2], [2, 1], [3, 2], [[2, 2, 1], 2])),
        *({key: size} for key in ("kernel_size", "up_kernel_size") for size in (5, [3, 3, 1])),
        *({"num_res_units": units} for units in (0, 1, 3)),
        *({"act": act} for act in ("relu", "leakyrelu")),
        *({"norm": norm} for norm in ("batch", "instance_plain")),
        {"negative_slope": 0.2, "dropout": 0.1},
    ],
    "basicunet": [
        *({"features": [4, 4, 8, 8, *last]} for last in ([8, 6], [16, 4])),
        *({"act": act} for act in ("relu", "prelu")),
        *({"norm": norm} for norm in ("batch", "group", "instance_plain")),
        *({"upsample": how} for how in ("nontrainable", "pixelshuffle")),
        *({"negative_slope": 0.2}, {"norm_groups": 2, "dropout": 0.1}),
    ],
    "dynunet": [
        *({"channels": widths} for widths in ([4, 8, 8], [4, 8, 8, 16])),
        *({"strides": [1, 2, 2, last]} for last in (1, 3, [2, 2, 1])),
        *({"kernel_size": sizes} for sizes in ([3, 3, 3, 5], [[1, 3, 3], 3, 3, 3])),
        *({"norm": norm} for norm in ("batch", "group", "instance_plain")),
        *({key: True} for key in ("residual", "trans_bias", "deep_supervision")),
        {"norm_groups": 2, "deep_supr_num": 2, "dropout": 0.1},
    ],
    "segresnet": [
        *({"blocks_down": blocks} for blocks in ([1, 2, 1], [1, 2, 3], [1, 1, 2])),
        *({"blocks_up": blocks} for blocks in ([1, 2], [2, 1])),
        {"blocks_down": [1, 2, 2, 1], "blocks_up": [1, 1, 1]},
        *({"norm": norm} for norm in ("batch", "instance", "instance_plain")),
        *({"upsample": how} for how in ("deconv", "pixelshuffle")),
        *({"init_filters": 16}, {"norm_groups": 4}, {"dropout": 0.1}),
    ],
    "swinunetr": [
        *({"depths": depths} for depths in ([2, 2, 6, 2], [2, 2, 1, 2])),
        *({"num_heads": heads} for heads in ([1, 2, 2, 4], [2, 2, 2, 2])),
        *({"window_size": sides} for sides in (3, [2, 3, 3])),
        *({"norm": norm} for norm in ("instance", "batch", "group")),
        *({"use_v2": True}, {"downsample": "mergingv2"}, {"feature_size": 24}),
        {"norm_groups": 2, "use_checkpoint": True, "dropout": 0.1}
        | {"attention_dropout": 0.1, "drop_path": 0.1},
    ],
    "arunet": [
        {"hparams": {"f_maps": 4, "num_levels": 3} | change}
        for change in ({"f_maps": 8}, {"num_levels": 4}, {"use_attention": False})
    ],
    "nnunet": [
        *({"architecture": "ResidualEncoderUNet"}, {"stem_channels": 8}),
        *({"orientation": axes} for axes in ("SAR", "LPS")),
        *({"features_per_stage": widths} for widths in ([4, 8, 16], [4, 8, 8, 8])),
        *({"kernel_sizes": sizes} for sizes in ([3, 3, 5], [[1, 3, 3], 3, 3])),
        *({"strides": [1, *strides]} for strides in ([2, 1], [2, [1, 2, 2]], [3, 2])),
        *({"n_blocks_per_stage": blocks} for blocks in (3, [1, 2, 2])),
        *({"n_conv_per_stage_decoder": blocks} for blocks in (1, [2, 3])),
        {"decoder_kernels": "below", "kernel_sizes": [[1, 3, 3], 3, 3]},
        *({"norm_op": norm} for norm in ("BatchNorm3d", None)),
        *({"norm_op_kwargs": {"eps": eps, "affine": eps < 1e-4}} for eps in (1e-5, 1e-3)),
        {"norm_op_kwargs": {"eps": 1e-3, "affine": True}},
        *({"nonlin": "ReLU"}, {"nonlin": "PReLU", "nonlin_kwargs": {}}),
        {"nonlin_kwargs": {"negative_slope": 0.2}},
        *({"conv_bias": False}, {"nonlin_first": True}, {"deep_supervision": True}),
        *({"dropout_op": "Dropout3d", "dropout_op_kwargs": {"p": 0.1}},),
    ],
}
CHANGES |= {
    "segresnet_ds": [
        *({"blocks_down": blocks} for blocks in ([1, 2, 1], [1, 1, 2])),
        {"blocks_up": [1, 2]},
        *({"norm": norm} for norm in ("group", "instance", "instance_plain")),
        *({"upsample": how} for how in ("nontrainable", "pixelshuffle")),
        *({"init_filters": 16}, {"resolution": [1, 1, 3]}),
        {"deep_supervision": True, "deep_supr_num": 1, "norm_groups": 4},
    ],
    "unetr": [
        *({"feature_size": 4}, {"hidden_size": 16}, {"mlp_dim": 8}, {"num_heads": 4}),
        *({"image_size": size} for size in (48, [32, 32, 48])),
        *({"norm": norm} for norm in ("instance", "batch", "group")),
        {"norm_groups": 1, "dropout": 0.1},
    ],
    "mednext": [
        *({"init_filters": 4}, {"kernel_size": 5}, {"bottleneck_expansion": 3}),
        *({f"{part}_expansion": rates} for part in ("encoder", "decoder") for rates in (3, [2, 1])),
        *({"blocks_down": [1, 2]}, {"blocks_bottleneck": 1}, {"blocks_up": [2, 1]}),
        *({"residual": False}, {"response_norm": True}, {"deep_supervision": True}),
    ],
    "resnet_unet": [
        *({"depth": 18}, {"depth": 50}, {"width": 4}, {"decoder_channels": [4, 4, 4, 4, 2]}),
        *({"norm": norm} for norm in ("batch", "group", "instance_plain")),
        *({"upsample": how} for how in ("deconv", "pixelshuffle")),
        {"norm_groups": 2},
    ],
    "stunet": [
        *({"orientation": axes} for axes in ("SAR", "LPS")),
        *({"features_per_stage": widths} for widths in ([2, 3, 5], [2, 3, 4, 4])),
        *({"kernel_sizes": [3, 3, 5]}, {"strides": [1, 2, [1, 2, 2]]}),
        *({"n_blocks_per_stage": blocks} for blocks in (2, [1, 2, 1])),
    ],
    "suprem_unet": [{"width": 4}],
    "anatomix": [
        *({"width": 4}, {"halvings": 3}, {"features": 2}, {"norm": "instance_plain"}),
        *({"norm_eps": 1e-2}, {"pooling": "mean"}, {"upsample": "trilinear"}),
    ],
    "rsunet": [
        *({"orientation": axes} for axes in ("SAR", "LPS")),
        *({"channels": widths} for widths in ([2, 4, 6], [2, 4])),
        *({"strides": [[1, 2, 2], 2]}, {"kernel_size": [3, [1, 3, 3], 3]}),
        *({"norm": norm} for norm in ("group", "instance_plain")),
        *({"act": act} for act in ("leakyrelu", "prelu", "elu")),
        *({"norm_groups": 2}, {"negative_slope": 0.2}),
    ],
    "primus": [
        *({"orientation": axes} for axes in ("SAR", "LPS")),
        *({"embed_dim": 48}, {"depth": 5}, {"num_heads": 4}, {"image_size": [16, 16, 24]}),
        *({"decoder_channels": [88, 8]}, {"drop_path": 0.1}),
    ],
}
UNTOLD: dict[str, set[str]] = {
    "unet": {"strides", "norm"},
    "monai_unet": {"strides"},
    "basicunet": {"act", "negative_slope", "norm"},
    "dynunet": {"norm"},
    "segresnet": {"norm", "norm_groups"},
    "swinunetr": {"downsample"},
    "arunet": set(),
    "nnunet": {"orientation", "norm_op_kwargs", "nonlin", "nonlin_kwargs"},
    "segresnet_ds": {"norm"},
    "unetr": {"num_heads"},
    "mednext": set(),
    "resnet_unet": {"norm"},
    "stunet": {"orientation", "strides"},
    "suprem_unet": set(),
    "anatomix": {"norm_eps", "pooling", "upsample"},
    "rsunet": {"orientation", "act"},
    "primus": {"orientation", "num_heads"},
}
"""What neither names nor shapes show, as docs/weights.md says."""
_LARGE = 32**3
Logits = tuple[torch.Tensor, torch.Tensor]
"""An image, and what a network makes of it."""
every_kind = pytest.mark.parametrize("kind", DEFAULTS)


def settings_of(kind: str, change: Mapping[str, Any]) -> NetworkSettings:
    return validate_network({"name": kind, **DEFAULTS[kind], **change})


def take(target: Anatomy, checkpoint: Checkpoint, **more: Any) -> Receipt:
    assert target.settings is not None
    head = HeadRequest(SOURCE, class_axes(target.settings, 1, len(SOURCE)))
    return transfer(target, checkpoint, head, **more)


def refusal(target: Anatomy, checkpoint: Checkpoint) -> str:
    """What the error says; empty if the weights are taken."""
    try:
        take(target, checkpoint)
    except WeightsError as error:
        return str(error)
    return ""


class SourceLogits:
    """Logits of one network, computed once for each size of an image."""

    def __init__(self, source: Anatomy) -> None:
        self.source, self._known = source, dict[tuple[int, ...], Logits]()

    def differ(self, target: Anatomy) -> bool:
        """Whether another network computes another function of one image."""
        size = tuple(map(math.lcm, self.source.divisor, target.divisor))
        if size not in self._known:
            # anatomix needs two voxels along each axis at its deepest level.
            times = 2 if isinstance(self.source.settings, AnatomixSettings) else 1
            x, y, z = (times * size[0], times * size[1], 2 * size[2])
            # Large images take long in double, and show differences in single precision too.
            dtype = torch.float64 if x * y * z < _LARGE else torch.float32
            seed = torch.Generator().manual_seed(0)
            image = torch.randn(1, 1, x, y, z, generator=seed, dtype=dtype)
            self._known[size] = image, logits(self.source, image)
        image, expected = self._known[size]
        return not torch.allclose(expected, logits(target, image), rtol=1e-6)


def test_every_setting_of_every_network_is_changed() -> None:
    assert DEFAULTS.keys() == CHANGES.keys() == UNTOLD.keys() == {*BUILDERS}
    for kind, changes in CHANGES.items():
        described = type(settings_of(kind, {})).model_fields.keys() - ModelSettings.model_fields
        assert {key for change in changes for key in change} == described - {"name"}


@every_kind
def test_weights_of_another_function_are_refused_and_the_setting_is_named(
    kind: str, tmp_path: Path
) -> None:
    """What tensors tell is refused; what they do not, where the weights record their settings."""
    ours = settings_of(kind, {})
    source = random_network(ours, len(SOURCE), seed=1)
    torch.save(source.network.state_dict(), tmp_path / "plain.pt")
    plain = read_source(tmp_path / "plain.pt")
    recorded = saved(tmp_path, source, SOURCE, models=ours.model_dump(mode="json"))
    expected, other = SourceLogits(source), set[str]()
    for change in CHANGES[kind]:
        target = fresh(settings_of(kind, change), SOURCE)
        said = refusal(target, plain)
        # A dropout layer only shifts the numbers of nnU-Net's other layers.
        if said and "dropout_op" not in change:
            assert any(f"models.{key}" in said for key in change), f"{change}: {said}"
        if not said and expected.differ(target):
            other |= change.keys()
            said = refusal(target, recorded)
            assert any(f"models.{key}: " in said for key in change), f"{change}: {said}"
    assert other <= UNTOLD[kind]


def test_a_setting_may_be_allowed_to_differ(tmp_path: Path) -> None:
    ours, theirs = settings_of("basicunet", {"act": "relu"}), settings_of("basicunet", {})
    source = random_network(theirs, len(SOURCE), seed=1)
    checkpoint = saved(tmp_path, source, SOURCE, models=theirs.model_dump(mode="json"))
    receipt = take(
        fresh(ours, SOURCE), checkpoint, matching=MatchRequest(allow_mismatch=["models.act"])
    )
    assert receipt.share_loaded == 1
    assert receipt.allowed == ("models.act",)


def test_what_is_left_of_the_trunk_is_listed_and_may_be_allowed(tmp_path: Path) -> None:
    settings = settings_of("segresnet", {})
    state = random_network(settings, len(SOURCE), seed=1).network.state_dict()
    beside = {"down_layers.2.7.conv.weight": torch.ones(2), "down_layers.3.1.bias": torch.ones(2)}
    heads = {"cls_head.0.weight": torch.ones(2), "down_layers.2.proj_head.bias": torch.ones(2)}
    torch.save(state | beside | heads, tmp_path / "a.pt")
    checkpoint = read_source(tmp_path / "a.pt")
    said = refusal(fresh(settings, SOURCE), checkpoint)
    assert all(name in said for name in beside)
    patterns = said.rpartition("weights.allow_mismatch=[")[2].rpartition("]")[0].split(", ")
    matching = MatchRequest(allow_mismatch=patterns)
    receipt = take(fresh(settings, SOURCE), checkpoint, matching=matching)
    assert set(receipt.allowed) == set(beside)
    assert set(receipt.unused) == set(beside) | set(heads)


def test_a_refusal_lists_unused_names_beside_missing_ones(tmp_path: Path) -> None:
    settings = settings_of("basicunet", {})
    state = random_network(settings, len(SOURCE), seed=1).network.state_dict()
    state = {name.replace("down_2.", "lower.two."): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "a.pt")
    said = refusal(fresh(settings, SOURCE), read_source(tmp_path / "a.pt"))
    assert "down_2.convs.conv_0.conv.weight: not in the checkpoint" in said
    assert "other tensors of the checkpoint unused: lower.two" in said
