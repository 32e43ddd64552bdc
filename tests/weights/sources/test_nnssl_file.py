"""Self-supervised weights of nnssl bring their network, and ask to be cited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.config.settings.preprocessing_settings import ZScoreIntensity
from hsf_finetune.networks.build import build
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.nnssl_file import _RESENC_L
from hsf_finetune.weights.sources.read_source import SourceOptions, read_source
from hsf_finetune.weights.transfer.match_names import pair_by_name
from tests.weights.small_networks import load

STORED = Path(__file__).parents[1] / "stored" / "published"

SMALL: dict[str, Any] = {
    **_RESENC_L,
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "kernel_sizes": [[3, 3, 3], [3, 3, 1], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2]],
    "n_blocks_per_stage": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
    "dropout_op": None,
    "dropout_op_kwargs": None,
}
CITATIONS = [
    {"type": "Architecture", "name": "ResEnc-L", "apa_citations": ["Isensee et al. (2024)."]},
    {"type": "Dataset", "name": "OpenMind", "bibtex_citations": ["@article{wald,\n year={2024}}"]},
]


def _plan(name: str, **changes: Any) -> dict[str, Any]:
    """What nnssl writes about a network, in the form of its AdaptationPlan."""
    configuration = {
        "data_identifier": "nnsslPlans_onemmiso",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing_style": "onemmiso",
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "spacing": [1, 1, 1],
        "patch_size": [160, 160, 160],
        **changes,
    }
    kwargs = SMALL if name in ("ResidualEncoderUNet", "PlainConvUNet") else None
    return {
        "architecture_plans": {
            "arch_class_name": name,
            "arch_kwargs": kwargs,
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "nonlin"] if kwargs else None,
        },
        "pretrain_plan": {
            "dataset_name": "Dataset745_OpenMind",
            "plans_name": "nnsslPlans",
            "original_median_spacing_after_transp": [1, 1, 1],
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"onemmiso": configuration},
            "experiment_planner_used": "FixedResEncUNetPlanner",
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [160, 160, 160],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "key_to_lpe": None,
    }


def _file(path: Path, name: str, encoder_only: bool = False, **changes: Any) -> Path:
    models = {"name": "nnunet", "architecture": "ResidualEncoderUNet", "conv_bias": True}
    kept = ("features_per_stage", "kernel_sizes", "strides", "n_blocks_per_stage")
    small = {key: SMALL[key] for key in (*kept, "n_conv_per_stage_decoder")}
    state = build(validate_network(models | small), 1, 1).network.state_dict()
    weights = {n: t for n, t in state.items() if not encoder_only or n.startswith("encoder.")}
    content = {
        "network_weights": weights,
        "nnssl_adaptation_plan": _plan(name, **changes),
        "citations": CITATIONS,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("encoder_only", [False, True])
def test_the_network_is_that_of_the_plan(tmp_path: Path, encoder_only: bool) -> None:
    source = read_source(_file(tmp_path / "a.pth", "ResidualEncoderUNet", encoder_only))
    assert (source.origin["format"], source.in_channels, source.classes) == ("nnssl", 1, None)
    anatomy = build(validate_network(source.models or {}), 1, 3)
    pairs = pair_by_name(anatomy.network, source.tensors)
    missing = {name for name in pairs.target if pairs.mismatch(name)}
    assert missing.isdisjoint(anatomy.encoder_names())
    assert bool(missing - {n for n in missing if "seg_layers" in n}) == encoder_only


def test_the_preset_of_the_published_weights(tmp_path: Path) -> None:
    source = read_source(_file(tmp_path / "a.pth", "ResEncL"))
    assert source.models is not None
    assert source.models["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert source.models["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    # nnssl's readers give (z, y, x).
    assert source.models["orientation"] == "SAR"
    turned = read_source(tmp_path / "a.pth", SourceOptions(orientation="LPI"))
    assert turned.models is not None
    assert turned.models["orientation"] == "IPL"


def test_what_the_user_should_know_is_said(tmp_path: Path) -> None:
    origin = read_source(_file(tmp_path / "a.pth", "ResEncL")).origin
    for said in ("name no classes", "nnssl keeps a file's axes"):
        assert said in "\n".join(origin["notes"])
    assert origin["citation"] == "Isensee et al. (2024).; @article{wald, year={2024}}"
    skipless = read_source(_file(tmp_path / "c.pth", "NoSkipResEncL"))
    assert any("weights.load=encoder" in note for note in skipless.origin["notes"])


@pytest.mark.parametrize("spacing", [[1, 2, 3], None])
def test_scans_are_prepared_as_the_plan_says(tmp_path: Path, spacing: list[int] | None) -> None:
    how = read_source(_file(tmp_path / "a.pth", "ResEncL", spacing=spacing)).preprocessing
    assert how is not None
    # nnssl's readers give (z, y, x).
    assert how.spacing_mm == ((3, 2, 1) if spacing else None)
    assert how.intensity == (ZScoreIntensity(),)
    assert (how.intensity_first, how.crop) == (True, "nonzero")
    assert (how.window_vox, how.padded_size) == ((160, 160, 160), "multiple")


def test_a_transformer_is_that_of_its_tensors_and_loads_whole() -> None:
    """A file of the library's own Primus, as nnssl saves it, with its second transformer."""
    source = read_source(STORED / "primus.pt")
    settings = validate_network(source.models or {})
    assert (settings.name, settings.embed_dim, settings.depth) == ("primus", 36, 4)  # type: ignore[union-attr]
    # The name of the architecture tells heads, and the plan where axes point.
    assert (settings.num_heads, settings.orientation) == (6, "SAR")  # type: ignore[union-attr]
    assert source.preprocessing is not None
    assert source.preprocessing.spacing_mm == (1, 1, 1)
    # Arrays are (z, y, x): positions are along those, and windows along X, Y and Z.
    assert (settings.image_size, source.preprocessing.window_vox) == ([16, 16, 32], (32, 16, 16))  # type: ignore[union-attr]
    assert source.origin["citation"] == "Wald et al. (2025)."
    assert "second transformer" in "\n".join(source.origin["notes"])
    anatomy = build(settings, 1, 3)
    receipt = load(settings, anatomy, source, ("background", "A", "B"))
    assert receipt.share_tensors == 1
    assert set(receipt.unused) == {"decoder.blocks.0.gamma_1", "decoder.norm.bias", "mask_token"}


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="Mamba"):
        read_source(_file(tmp_path / "a.pth", "Mamba"))


@pytest.mark.parametrize("part", ["architecture_plans", "pretrain_plan"])
def test_a_plan_that_cannot_be_read(tmp_path: Path, part: str) -> None:
    path = _file(tmp_path / "a.pth", "ResEncL")
    content = torch.load(path, weights_only=True)
    content["nnssl_adaptation_plan"][part] = []
    torch.save(content, path)
    with pytest.raises(WeightsError, match="nnssl's plan cannot be read"):
        read_source(path)
