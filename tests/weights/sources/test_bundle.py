"""MONAI bundles as MONAI writes them, read back into our networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hsf_finetune.config.settings import DynUNetSettings, PretrainedSettings, UNetSettings
from hsf_finetune.networks.build import build, class_axes
from hsf_finetune.networks.pretrained_network import resolve_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.bundle import is_bundle, read_bundle
from hsf_finetune.weights.sources.bundle_config import ConfigObject
from hsf_finetune.weights.sources.bundle_network import network_settings
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.weights.bundles import CLASSES, METADATA, NETWORKS, bundle, monai_network


# ------------------------------------------------------------ what MONAI writes
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.len.strides")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_loads_and_the_output_is_monais(tmp_path: Path, name: str) -> None:
    theirs = monai_network(NETWORKS[name])
    path = bundle(tmp_path / "made", NETWORKS[name], theirs)
    assert is_bundle(path)
    checkpoint = read_bundle(path)
    assert checkpoint.classes == CLASSES
    assert (checkpoint.in_channels, checkpoint.channel_names) == (2, ("T1", "T2"))
    models = resolve_network(PretrainedSettings(lr=0.02), checkpoint.models, checkpoint.path)
    assert models.lr == 0.02
    assert models.name == {"unet": "monai_unet"}.get(name.split()[0], name.split()[0])
    torch.manual_seed(2)
    ours = build(models, 2, 3)
    receipt = transfer(ours, checkpoint, HeadRequest(CLASSES, class_axes(models, 2, 3)))
    assert {entry.status for entry in receipt.entries} == {"loaded"}
    assert receipt.share_loaded == 1
    # MONAI's transformers have norms that nothing uses.
    assert all("norm_cross_attn" in unused for unused in receipt.unused)
    x, y, z = ours.divisor
    image = torch.randn(1, 2, x, y, 2 * z)
    assert torch.equal(ours.network.eval()(image), theirs(image))


@pytest.mark.parametrize(("below", "kind"), [("", "zip"), ("made", "zip"), ("made", "gztar")])
def test_an_archive_is_read_like_its_folder(tmp_path: Path, below: str, kind: str) -> None:
    folder = bundle(tmp_path / "made", weights=monai_network(NETWORKS["segresnet"]))
    root, base = (tmp_path, below) if below else (folder, None)
    path = Path(shutil.make_archive(str(tmp_path / "bundle"), kind, root, base))
    assert is_bundle(path)
    packed, plain = read_bundle(path), read_bundle(folder)
    assert packed.path == path
    assert (packed.digest, packed.models, packed.classes) == (
        plain.digest,
        plain.models,
        plain.classes,
    )
    assert all(torch.equal(t, plain.tensors[name]) for name, t in packed.tensors.items())


def test_torchscript_takes_the_place_of_a_missing_file(tmp_path: Path) -> None:
    network = monai_network(NETWORKS["segresnet"])
    path = bundle(tmp_path / "made", weights=network)
    torch.jit.script(network).save(path / "models" / "model.ts")
    expected = read_bundle(path)
    (path / "models" / "model.pt").unlink()
    found = read_bundle(path)
    assert (found.path.name, found.models) == ("model.ts", expected.models)
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[n], expected.tensors[n]) for n in expected.tensors)


def test_origin_says_whose_it_is(tmp_path: Path) -> None:
    path = bundle(tmp_path / "hippo")
    (path / "LICENSE").write_text("\n   Apache License\n  Version 2.0, January 2004\n ...\n")
    origin = read_bundle(path).origin
    assert origin == {
        "format": "MONAI bundle",
        "name": "hippo",
        "version": "0.3.7",
        "licence": "Apache License, Version 2.0, January 2004",
        "copyright": "Copyright (c) Nobody",
        "citation": "Someone et al. 2021; Someone else 2022",
    }


def test_yaml_and_train_configurations_are_read_too(tmp_path: Path) -> None:
    path = bundle(tmp_path / "a")
    text = json.loads((path / "configs" / "inference.json").read_text())
    (path / "configs" / "inference.json").unlink()
    (path / "configs" / "evaluate.json").write_text('{"validate": {}}')
    (path / "configs" / "train.yaml").write_text(yaml.safe_dump(text))
    models = read_bundle(path).models
    assert models is not None
    assert models["name"] == "segresnet"


def test_references_are_followed(tmp_path: Path) -> None:
    network = NETWORKS["segresnet"] | {
        "init_filters": "@widths::1",
        "blocks_down": "$@shape#down",
        "blocks_up": ["%shape::up::0"],
        "in_channels": "@channels",
    }
    further = {
        "widths": [4, "@full"],
        "full": 16,
        "shape": {"down": [1, 2], "up": [1]},
        "channels": 2,
    }
    checkpoint = read_bundle(bundle(tmp_path / "a", network, further=further))
    assert checkpoint.models is not None
    assert checkpoint.in_channels == 2
    shape = {k: checkpoint.models[k] for k in ("init_filters", "blocks_down", "blocks_up")}
    assert shape == {"init_filters": 16, "blocks_down": [1, 2], "blocks_up": [1]}


def test_computed_channels_are_those_of_the_metadata(tmp_path: Path) -> None:
    network = NETWORKS["segresnet"] | {
        "in_channels": "$len(@label_names) + 1",
        "out_channels": "$len(@label_names)",
    }
    checkpoint = read_bundle(bundle(tmp_path / "a", network))
    assert checkpoint.in_channels == 2
    assert checkpoint.classes == CLASSES


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (None, "no network_data_format.outputs.pred.channel_def"),
        ({"0": "background", "1": "A"}, "does not name each of 3 channels once"),
        ({"0": "background", "1": "A", "2": "A"}, "does not name each of 3 channels once"),
        ({"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing"}, "(sigmoid)"),
    ],
)
def test_classes_in_doubt_are_noted(tmp_path: Path, given: Any, note: str) -> None:
    metadata = json.loads(json.dumps(METADATA))
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = given
    checkpoint = read_bundle(bundle(tmp_path / "a", metadata=metadata))
    assert (checkpoint.classes is None) is ("sigmoid" not in note)
    assert note in " ".join(checkpoint.origin["notes"])


PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # As in swin_unetr_btcv_segmentation; img_size was an argument up to MONAI 1.4.
    "SwinUNETR": (
        {"spatial_dims": 3, "img_size": 96, "feature_size": 48, "use_checkpoint": True},
        {"name": "swinunetr", "feature_size": 48, "norm": "instance_plain"},
    ),
    # As in spleen_deepedit_annotation.
    "DynUNet": (
        {
            "spatial_dims": 3,
            "kernel_size": [3, 3, 3, 3, 3, 3],
            "strides": [1, 2, 2, 2, 2, [2, 2, 1]],
            "upsample_kernel_size": [2, 2, 2, 2, [2, 2, 1]],
            "norm_name": "instance",
            "deep_supervision": False,
            "res_block": True,
        },
        {"name": "dynunet", "channels": [32, 64, 128, 256, 320, 320], "norm": "instance_plain"},
    ),
    # As in wholeBody_ct_segmentation.
    "SegResNet": (
        {"init_filters": 32, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]},
        {"name": "segresnet", "init_filters": 32, "norm": "group", "norm_groups": 8},
    ),
}


@pytest.mark.parametrize("target", PUBLISHED)
def test_published_descriptions_are_understood(target: str) -> None:
    given, expected = PUBLISHED[target]
    text = ConfigObject(target, given, "network_def", {}, Path("inference.json"))
    models = network_settings(text)
    assert {key: models[key] for key in expected} == expected


# -------------------------------------------------------------- models=pretrained
def test_the_mismatch_error_points_to_the_sources_network(tmp_path: Path) -> None:
    network = NETWORKS["dynunet"] | {"deep_supervision": False}
    checkpoint = read_bundle(bundle(tmp_path / "a", network, monai_network(network)))
    with pytest.raises(WeightsError) as caught:
        transfer(build(UNetSettings(), 2, 3), checkpoint, HeadRequest(CLASSES))
    message = str(caught.value)
    assert "models=pretrained" in message
    assert "models=dynunet models.channels=[4,6,8,10] models.strides=[1,2,2,[2,2,1]]" in message
    assert DynUNetSettings.model_validate(checkpoint.models)
