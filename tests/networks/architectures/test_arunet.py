"""HSF's network: its names, its arithmetic, and a checkpoint and output of the original."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import instance_norm, layer_norm

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import (
    ARUNetHparams,
    ARUNetSettings,
    NetworkSettings,
    UNetSettings,
)
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build, class_axes
from hsf_finetune.networks.layers.switchnorm import SwitchNorm
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.infer_network import compare_networks
from hsf_finetune.weights.sources.read_source import read_source
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.receipt import Receipt
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.closeness import assert_equal_up_to_rounding

FOLDER = Path(
    os.environ.get("HSF_FINETUNE_HSF_CHECKPOINT")
    or Path(__file__).parents[4] / "shared" / "data" / "hsf_checkpoint"
)
original = pytest.mark.skipif(
    not (FOLDER / "arunet8_perturbed.ckpt").is_file(),
    reason="HSF's small checkpoint is not here; set HSF_FINETUNE_HSF_CHECKPOINT to the folder "
    "of arunet8_perturbed.ckpt and arunet8_perturbed_io.pt",
)
SMALL = ARUNetSettings(hparams=ARUNetHparams(f_maps=8))
SOURCE = ("background", "one", "two", "three", "four", "five")
TARGET = ("background", "one", "two", "three a", "three b", "four", "five", "six")


# --------------------------------------------------------------------- settings
def test_hparams_as_hsf_writes_them() -> None:
    written = {
        "modeltype": "ResidualUNet3D",
        "in_channels": 1,
        "out_channels": 6,
        "f_maps": 8,
        "num_levels": 4,
        "layer_order": "cgs",
        "use_attention": True,
    }
    composed = compose(
        "finetune",
        ["models=arunet", *(f"models.hparams.{k}={v}" for k, v in written.items())],
    )
    assert isinstance(composed.models, ARUNetSettings)
    assert composed.models.hparams.model_dump() == written
    assert build(composed.models, 1, 8).network.final_conv.bias.shape == (8,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_order", "gcr"),
        ("modeltype", "UNet3D"),
        ("f_maps", 1),
        ("num_levels", 1),
        ("out_channels", 0),
        ("pool_type", "max"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(key: str, value: object) -> None:
    plus = "+" if key == "pool_type" else ""
    with pytest.raises(ConfigError, match=rf"models\.hparams\.{key}"):
        compose("finetune", ["models=arunet", f"{plus}models.hparams.{key}={value}"])


def test_input_channels_must_be_those_of_the_data() -> None:
    settings = ARUNetSettings(hparams=ARUNetHparams(f_maps=2, in_channels=2))
    assert build(settings, 2, 3)
    with pytest.raises(ConfigError, match=r"models\.hparams\.in_channels=2 contradicts"):
        build(settings, 1, 3)


# ----------------------------------------------------------------- the network
def test_hsfs_size() -> None:
    with torch.device("meta"):
        network = build(ARUNetSettings(), 1, 6).network
    assert sum(p.numel() for p in network.parameters()) == 37_483_047
    assert len(network.state_dict()) == 191


def test_each_level_is_a_block() -> None:
    anatomy = build(SMALL, 1, 6)
    assert anatomy.divisor == (8, 8, 8)
    levels = {
        **{f"encoders.{i}.": f"encoder{i + 1}" for i in range(3)},
        "encoders.3.": "bottleneck",
        **{f"decoders.{i}.": f"decoder{3 - i}" for i in range(3)},
        "final_conv.": "head",
    }
    for name, block in anatomy.tensor_block().items():
        assert block == next(b for start, b in levels.items() if name.startswith(start))


@torch.no_grad()
def test_gates_only_lower_the_skip_and_can_be_left_out() -> None:
    torch.manual_seed(0)
    gate = build(SMALL, 1, 2).network.decoders[0].attention
    skip = torch.randn(2, 32, 4, 4, 4)
    share = gate(torch.randn(2, 32, 4, 4, 4), skip) / skip
    assert 0 < float(share.min()) < float(share.max()) < 1
    assert_equal_up_to_rounding(share, share[:, :1].expand_as(share))
    bare = build(ARUNetSettings(hparams=ARUNetHparams(f_maps=8, use_attention=False)), 1, 2)
    assert not [name for name in bare.network.state_dict() if "attention" in name]


# ------------------------------------------------------- switchable normalisation
def _mixed(instance: float, norm: SwitchNorm) -> SwitchNorm:
    """The norm with that share of instance statistics."""
    for weights in (norm.mean_weight, norm.var_weight):
        nn.init.zeros_(weights)
        weights.data[0] = torch.tensor(instance / (1 - instance)).log()
    return norm


def test_one_end_is_instance_normalisation() -> None:
    x = 3 + 2 * torch.randn(2, 5, 4, 6, 8)
    voxels = 4 * 6 * 8
    expected = instance_norm(x) * ((voxels - 1) / voxels) ** 0.5
    assert_equal_up_to_rounding(_mixed(1 - 1e-7, SwitchNorm(5))(x), expected)


def test_the_other_end_is_layer_normalisation() -> None:
    x = 3 + 2 * torch.randn(2, 5, 16, 16, 16) + torch.arange(5.0).reshape(5, 1, 1, 1)
    expected = layer_norm(x, x.shape[1:])
    # Variances of a channel are divided by one voxel less.
    torch.testing.assert_close(
        _mixed(1e-7, SwitchNorm(5))(x), expected, atol=float(expected.max()) / 16**3, rtol=0
    )


@torch.no_grad()
def test_the_mix_is_as_published() -> None:
    torch.manual_seed(0)
    norm, x = SwitchNorm(3).double(), torch.randn(2, 3, 4, 4, 4).double() + 1
    for p in norm.parameters():
        p.copy_(torch.randn_like(p))
    flat = x.flatten(2)
    mean, var = flat.mean(2, keepdim=True), flat.var(2, keepdim=True)
    layer_mean = mean.mean(1, keepdim=True)
    layer_var = (var + mean**2).mean(1, keepdim=True) - layer_mean**2
    a, b = norm.mean_weight.softmax(0), norm.var_weight.softmax(0)
    expected = flat - (a[0] * mean + a[1] * layer_mean)
    expected = expected / (b[0] * var + b[1] * layer_var + 1e-5).sqrt()
    expected = expected.reshape(x.shape) * norm.weight + norm.bias
    assert_equal_up_to_rounding(norm(x), expected)


def test_a_case_does_not_depend_on_its_batch_nor_on_the_mode() -> None:
    norm, x = SwitchNorm(3), torch.randn(3, 3, 4, 4, 4)
    together = norm.train()(x)
    assert_equal_up_to_rounding(together[1:2], norm.eval()(x[1:2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_half_precision_are_single(dtype: torch.dtype) -> None:
    norm = SwitchNorm(2)
    x = (8 + torch.randn(1, 2, 48, 48, 48)).to(dtype)
    found = norm(x)
    assert found.dtype == dtype
    assert_equal_up_to_rounding(found.float(), norm(x.float()), 2, precision=dtype)


def test_one_voxel_has_no_variance() -> None:
    with pytest.raises(ValueError, match="more than one voxel"):
        SwitchNorm(2)(torch.ones(4, 2, 1, 1, 1))


# ----------------------------------------------------------- HSF's own checkpoint
def _checkpoint() -> Checkpoint:
    return read_source(FOLDER / "arunet8_perturbed.ckpt")


def _loaded(
    classes: tuple[str, ...],
    names: tuple[str, ...] | None = SOURCE,
    derive_from: dict[str, str | list[str]] | None = None,
    settings: NetworkSettings = SMALL,
) -> tuple[Anatomy, Receipt]:
    torch.manual_seed(0)
    anatomy = build(settings, 1, len(classes))
    axes = class_axes(settings, 1, len(classes))
    request = HeadRequest(classes, axes, names, derive_from or {})
    return anatomy, transfer(anatomy, _checkpoint(), request)


@torch.no_grad()
def _probabilities(anatomy: Anatomy) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours and the original's, for the input that the original was given."""
    given = torch.load(FOLDER / "arunet8_perturbed_io.pt", weights_only=True)
    return anatomy.network.eval()(given["x"]).softmax(1), given["y"]


@original
@pytest.mark.parametrize("names", [SOURCE, None])
def test_every_tensor_loads_and_the_output_is_reproduced(names: tuple[str, ...] | None) -> None:
    anatomy, receipt = _loaded(SOURCE, names)
    assert Counter(entry.status for entry in receipt.entries) == {"loaded": 191}
    assert not receipt.unused
    assert receipt.renamed == "'_model.' removed"
    found, expected = _probabilities(anatomy)
    assert_equal_up_to_rounding(found, expected)


@original
def test_six_classes_become_eight_by_name() -> None:
    derive_from: dict[str, str | list[str]] = {"three a": "three", "three b": "three"}
    anatomy, receipt = _loaded(TARGET, SOURCE, derive_from)
    assert Counter(e.status for e in receipt.entries) == {"loaded": 189, "remapped": 2}
    assert {rule.target: rule.rule for rule in receipt.channels} == {
        "background": "copied",
        "one": "copied",
        "two": "copied",
        "three a": "split",
        "three b": "split",
        "four": "copied",
        "five": "copied",
        "six": "from background",
    }
    assert not receipt.dropped
    found, expected = _probabilities(anatomy)
    parent = [0, 1, 2, 3, 3, 4, 5, 0]
    summed = torch.zeros_like(expected).index_add(1, torch.tensor(parent), found)
    assert_equal_up_to_rounding(summed, expected)


@original
def test_without_names_the_head_starts_fresh_and_the_receipt_says_how_to_keep_it() -> None:
    _, receipt = _loaded(TARGET, None)
    assert receipt.share_loaded == 1
    assert {entry.status for entry in receipt.entries if not entry.trunk} == {"fresh"}
    assert "6 channels have no names" in receipt.channels[0].line()
    assert "'finetuning.source_classes=[background, ...]'" in receipt.channels[0].line()


@original
def test_names_that_are_too_few_load_nothing() -> None:
    with pytest.raises(ConfigError, match=r"each of the checkpoint's 6 channels(?s:.*)5 names"):
        _loaded(TARGET, SOURCE[:5])


@original
@pytest.mark.parametrize("settings", [UNetSettings(), ARUNetSettings(hparams={"f_maps": 4})])
def test_another_network_is_told_which_to_take(settings: NetworkSettings) -> None:
    with pytest.raises(WeightsError) as caught:
        _loaded(SOURCE, settings=settings)
    assert (
        "models=arunet models.hparams.f_maps=8 models.hparams.num_levels=4 "
        "models.hparams.use_attention=true"
    ) in str(caught.value)


@original
def test_hsfs_checkpoint_tells_its_shape() -> None:
    assert _checkpoint().models == {
        "name": "arunet",
        "hparams": {"f_maps": 8, "num_levels": 4, "use_attention": True},
    }


def test_another_networks_tensors_are_not_taken_for_it() -> None:
    def names(tensors: dict[str, torch.Tensor]) -> list[str]:
        return [match.models["name"] for match in compare_networks(tensors) if match.is_exact]

    state = build(SMALL, 1, 2).network.state_dict()
    assert names(state) == ["arunet"]
    assert names({f"a.b.{name}": tensor for name, tensor in state.items()}) == ["arunet"]
    for part in ("encoders.1", "SwitchNorm3d"):
        assert names({n: t for n, t in state.items() if part not in n}) == []
    assert "arunet" not in names(build(UNetSettings(), 1, 2).network.state_dict())


def test_our_own_checkpoint_tells_its_width(tmp_path: Path) -> None:
    settings = ARUNetSettings(hparams=ARUNetHparams(f_maps=4, num_levels=3, use_attention=False))
    state = {f"network.{k}": v for k, v in build(settings, 1, 2).network.state_dict().items()}
    remarks = {"format": 1, "classes": ["background", "A"], "models": settings.model_dump()}
    torch.save({"state_dict": state, "hsf_finetune": remarks}, tmp_path / "a.ckpt")
    request = HeadRequest(("background", "A"))
    with pytest.raises(WeightsError) as caught:
        transfer(build(SMALL, 1, 2), read_checkpoint(tmp_path / "a.ckpt"), request)
    (line,) = [text for text in str(caught.value).splitlines() if "models=arunet" in text]
    overrides = line.removeprefix("  fix:").split()
    assert compose("finetune", overrides).models == settings
