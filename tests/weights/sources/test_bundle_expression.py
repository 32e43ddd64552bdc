"""Simple expressions of bundles have the value that MONAI gives them, and nothing is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from hsf_finetune.networks.build import build
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.bundle import read_bundle
from hsf_finetune.weights.sources.bundle_config import ConfigObject
from hsf_finetune.weights.sources.bundle_expression import read_expression
from hsf_finetune.weights.sources.bundle_network import network_settings
from hsf_finetune.weights.transfer.plan_head import HeadRequest
from hsf_finetune.weights.transfer.transfer_weights import transfer
from tests.weights.bundles import CLASSES, NETWORKS, bundle, monai_network

CONFIG: dict[str, Any] = {
    "spatial_size": [96, 96, 64],
    "labels": ["background", "CA1"],
    "spatial_dims": "$len(@spatial_size)",
    "again": "$@spatial_dims",
    "width": 8,
    "net": {"widths": [4, "@width"]},
}
FORMS = (
    "$len(@spatial_size)",
    "$@again",
    "@spatial_dims",
    "$3",
    "$-1",
    "$0.25",
    "$True",
    "$None",
    "$'batch'",
    "$[1, 2, [2, 2, 1]]",
    "$(1, 2)",
    "$list([1, 2])",
    "$tuple(@spatial_size)",
    "$list(@spatial_size)[1]",
    "$@spatial_size[-1]",
    "$len(@labels) + 1",
    "$2 * @width - 1",
    "$[3] * 5",
    "$[1] + [2] * 3",
    "$int(@width)",
    "$@net#widths#1",
    "$@net::widths::1 * 2",
)
REFUSED = (
    "$__import__('os').system('true')",
    "$@width.bit_length()",
    "$[x for x in @spatial_size]",
    "$eval('3')",
    "$open('x')",
    "$max(@spatial_size)",
    "$lambda: 3",
    "$len(@spatial_size, 2)",
    "$(3).__class__",
    "$2 ** 40",
    "$[0] * 10000000",
    "$10**9 * 10**9",
    "$f'{1}'",
    "$" + "(" * 400 + ")" * 400,
    "$" + "1+" * 400 + "1",
    "$@absent",
    "$len(@absent)",
    "$(x := 3)",
    "$_item0",
    "$len(",
    "$",
)


def _description(**arguments: Any) -> ConfigObject:
    return ConfigObject("SegResNet", arguments, "network_def", CONFIG, Path("inference.json"))


def _as_list(value: Any) -> Any:
    return [_as_list(part) for part in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("form", FORMS)
def test_values_are_those_of_monai(form: str) -> None:
    expected = ConfigParser({**CONFIG, "x": form}).get_parsed_content("x")
    assert _description(x=form).argument("x") == _as_list(expected)


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused(form: str) -> None:
    with pytest.raises(WeightsError, match=r"network_def\.x: "):
        _description(x=form).argument("x")


@pytest.mark.parametrize("name", ["Norm.BATCH", "monai.networks.layers.Norm.INSTANCE", "Act.PRELU"])
def test_names_of_layers(name: str) -> None:
    assert read_expression(name, lambda _: None) == name.rpartition(".")[2].casefold()


def test_references_that_go_round_end() -> None:
    config = {"a": "$len(@b)", "b": "$list(@a)"}
    given = ConfigObject("", {"x": "$len(@a)"}, "network_def", config, Path("i.json"))
    with pytest.raises(WeightsError, match="does not lead back to itself"):
        given.argument("x")


# ------------------------------------------------------------ forms of published bundles
@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "further"),
    [
        # As in renalStructures_CECT_segmentation.
        (NETWORKS["segresnet"] | {"norm_name": "group", "upsample_mode": "deconv"}, {}),
        (NETWORKS["segresnet"] | {"norm_name": "GROUP", "num_groups": 4}, {}),
        # As in pediatric_abdominal_ct_segmentation.
        (NETWORKS["dynunet"] | {"deep_supervision": False, "spatial_dims": "@dims"}, CONFIG),
        (NETWORKS["unet"] | {"norm": "$Norm.BATCH", "spatial_dims": "$@dims"}, CONFIG),
        (NETWORKS["unet"] | {"norm": ["INSTANCE", {"affine": True}], "act": ["prelu"]}, {}),
        (NETWORKS["segresnet"] | {"blocks_down": "$[1] * 3", "blocks_up": "$(1, 1)"}, {}),
    ],
)
def test_logits_are_those_of_monai(
    tmp_path: Path, network: dict[str, Any], further: dict[str, Any]
) -> None:
    plain = {"spatial_dims": 3, "norm": "batch", "act": "prelu", "blocks_down": [1, 1, 1]}
    plain |= {"blocks_up": [1, 1]}
    computed = {k: v for k, v in network.items() if str(v)[:1] in "$@" or v == ["prelu"]}
    theirs = monai_network(network | {key: plain[key] for key in computed})
    further = further | {"dims": "$len(@spatial_size)"} if further else {}
    source = read_bundle(bundle(tmp_path / "made", network, theirs, further=further))
    ours = build(validate_network(source.models or {}), 2, 3)
    receipt = transfer(ours, source, HeadRequest(CLASSES))
    assert {entry.status for entry in receipt.entries} == {"loaded"}
    image = torch.randn(1, 2, 16, 16, 16)
    assert torch.equal(ours.network.eval()(image), theirs(image))


def test_a_network_that_is_computed_follows_from_its_tensors(tmp_path: Path) -> None:
    network = NETWORKS["segresnet"] | {"init_filters": "$int(2 ** 3)"}
    theirs = monai_network(NETWORKS["segresnet"])
    source = read_bundle(bundle(tmp_path / "made", network, theirs))
    assert source.models is not None
    assert source.models["init_filters"] == 8
    assert "$int(2 ** 3)" in source.origin["notes"][0]
    assert source.classes == CLASSES


# -------------------------------------------------------------------- what errors say
def test_computed_values_leave_the_rest_to_copy() -> None:
    with pytest.raises(WeightsError) as caught:
        network_settings(_description(init_filters="$2**4", blocks_down=[1, 2], blocks_up=[1]))
    text = str(caught.value)
    assert "network_def.init_filters: '$2**4'" in text
    assert "set what is computed (init_filters)" in text
    assert "models=segresnet models.init_filters=8 models.blocks_down=[1,2]" in text
    assert "finetuning.pretrained=.../models/model.pt" in text


def test_every_problem_is_named_at_once() -> None:
    given = {"act": "swish", "wings": 2, "init_filters": "$2**4"}
    with pytest.raises(WeightsError) as caught:
        network_settings(_description(**given, blocks_down=[1, 2], blocks_up=[1]))
    text = str(caught.value)
    for said in ("network_def.act", "network_def.wings: 2", "network_def.init_filters"):
        assert said in text
    assert "no network of this package is known to have these layers" in text
    assert "what could be read: models=segresnet" in text
