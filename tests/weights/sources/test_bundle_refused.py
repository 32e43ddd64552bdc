"""Bundles that ours cannot follow, damaged ones and hostile ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.bundle import is_bundle, read_bundle
from hsf_finetune.weights.sources.bundle_config import ConfigObject
from hsf_finetune.weights.sources.bundle_network import network_settings
from tests.weights.bundles import CHANNELS, NETWORKS, bundle


def _refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_bundle(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"init_filters": "$2 ** 4"}, r"network_def.init_filters: '$2 ** 4'"),
        ({"init_filters": "$@full.bit_length()", "full": 3}, "'$@full.bit_length()'"),
        ({"init_filters": "@full"}, "network_def.init_filters: '@full'"),
        ({"init_filters": "@#full"}, "network_def.init_filters: '@#full'"),
        ({"blocks_up": "%other.json::up"}, "network_def.blocks_up: '%other.json::up'"),
        ({"init_filters": {"_target_": "int", "x": 3}}, "network_def.init_filters: 'int'"),
        ({"_target_": "os.system"}, "network_def._target_: 'os.system'"),
        ({"_target_": "scripts.networks.SegResNet"}, "'scripts.networks.SegResNet'"),
        ({"_target_": "monai.networks.nets.os.SegResNet"}, "_target_: 'monai.networks.nets.os"),
        ({"_target_": "VNet"}, "'VNet'"),
        ({"_target_": "DiNTS", "dints_space": "$@space"}, "network_def._target_: 'DiNTS'"),
        ({"_target_": "$__import__('os')"}, "\"$__import__('os')\""),
        ({"_mode_": "callable"}, "network_def._mode_: 'callable'"),
        ({"_disabled_": True}, "network_def._disabled_: True"),
        ({"spatial_dims": 2}, "network_def.spatial_dims: 2"),
        ({"act": "swish"}, "network_def.act: "),
        ({"use_conv_final": False}, "network_def.use_conv_final: False"),
        ({"norm": ["group", {"num_groups": 8, "eps": 1e-3}]}, "network_def.norm: ['group'"),
        ({"blocks_up": [1, 1]}, "blocks_up needs one entry fewer than blocks_down"),
        ({"init_filters": "eight"}, "init_filters: Input should be a valid integer"),
        ({"wings": 2}, "network_def.wings: 2"),
    ],
)
def test_what_ours_cannot_follow_is_named(
    tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    further = {"full": change.pop("full")} if "full" in change else {}
    message = _refused(bundle(tmp_path / "a", NETWORKS["segresnet"] | change, further=further))
    assert found in message
    assert "inference.json" in message
    assert "models=" in message


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("unet", {"spatial_dims": 2, "strides": [2, 2]}, "a network for volumes"),
        ("unet", {"bias": False}, "network_def.bias: False"),
        ("unet", {"adn_ordering": "NA"}, "'NA'"),
        ("unet", {"norm": ["group", {"num_groups": 1}]}, "norm: Input should be 'instance'"),
        ("unet", {"channels": "many"}, "channels: Input should be a valid list"),
        ("dynunet", {"upsample_kernel_size": [2, 2, 2]}, "network_def.upsample_kernel_size"),
        ("dynunet", {"act_name": "relu"}, "leakyrelu of slope 0.01"),
        ("dynunet", {"strides": [2, 2, 2, [2, 2, 1]]}, "the first of strides must be 1"),
        ("basicunet", {"dropout": ["dropout", {"p": 0.1}]}, "network_def.dropout"),
        ("swinunetr", {"patch_size": 4}, "network_def.patch_size: 4"),
        ("swinunetr", {"feature_size": 20}, "feature_size: Input should be a multiple of 12"),
    ],
)
def test_each_network_says_what_it_cannot_be(name: str, change: dict[str, Any], found: str) -> None:
    given = CHANNELS | NETWORKS[name] | change
    target = given.pop("_target_")
    text = ConfigObject(target, given, "network_def", {}, Path("inference.json"))
    with pytest.raises(WeightsError) as caught:
        network_settings(text)
    assert found in str(caught.value)


def test_nothing_of_a_bundle_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    code = f"$__import__('pathlib').Path({str(mark)!r}).touch()"
    hostile = {
        "imports": [code],
        "device": code,
        "network": code,
        "initialize": [{"_target_": "os.system", "command": f"touch {mark}"}],
    }
    assert read_bundle(bundle(tmp_path / "a", further=hostile)).models
    for number, network in enumerate(
        (
            NETWORKS["segresnet"] | {"dropout_prob": code},
            NETWORKS["segresnet"] | {"_requires_": code, "wings": code},
            {"_target_": "os.system", "command": f"touch {mark}"},
        )
    ):
        assert _refused(bundle(tmp_path / f"b{number}", network))
    path = bundle(tmp_path / "c")
    (path / "configs" / "inference.json").unlink()
    (path / "configs" / "inference.yaml").write_text(
        f"network_def: !!python/object/apply:os.system ['touch {mark}']"
    )
    assert "plain YAML" in _refused(path)
    assert not mark.exists()


def test_references_that_go_round_or_swell_end(tmp_path: Path) -> None:
    network = NETWORKS["segresnet"] | {"init_filters": "@a"}
    message = _refused(bundle(tmp_path / "round", network, further={"a": "@b", "b": "@a"}))
    assert "does not lead back to itself" in message
    swelling: dict[str, Any] = {f"a{i}": [f"@a{i + 1}"] * 10 for i in range(9)} | {"a9": 1}
    network = NETWORKS["segresnet"] | {"blocks_down": "@a0"}
    assert "some dozen values" in _refused(bundle(tmp_path / "swelling", network, further=swelling))


def test_damaged_configurations_are_named(tmp_path: Path) -> None:
    path = bundle(tmp_path / "a")
    for text, found in (
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "is not a dictionary"),
        ("{}", "does not describe its network"),
        ('{"network_def": 3}', "network_def: 3"),
    ):
        (path / "configs" / "inference.json").write_text(text)
        assert found in _refused(path)


def test_missing_weights_say_what_is_there_instead(tmp_path: Path) -> None:
    path = bundle(tmp_path / "a")
    (path / "models" / "model.pt").rename(path / "models" / "model_trt.engine")
    message = _refused(path)
    assert "found:    model_trt.engine" in message
    (path / "large_files.yml").write_text("large_files: []")
    assert "download_large_files" in _refused(path)


def test_errors_inside_an_archive_name_the_archive(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "made")
    (folder / "models" / "model.pt").unlink()
    path = Path(shutil.make_archive(str(tmp_path / "b"), "zip", folder))
    assert f"{path}/models/model.pt" in _refused(path)


def test_only_bundles_are_taken_for_such(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "model.pt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for path in (tmp_path / "model.pt", tmp_path / "run", tmp_path / "nothing"):
        assert not is_bundle(path)
