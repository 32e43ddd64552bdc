"""Where a transfer of the head claims to be exact, on every network and every head of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from hsf_finetune.config.settings import NetworkSettings
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import BUILDERS
from hsf_finetune.weights.transfer.receipt import Receipt
from tests.closeness import assert_equal_up_to_rounding
from tests.weights.small_networks import (
    DYNUNET,
    SETTINGS,
    SOURCE,
    UNET,
    every_network,
    fresh,
    image,
    load,
    logits,
    random_network,
    saved,
)

Derivations = dict[str, "str | list[str]"]


def _moved(
    path: Path,
    settings: NetworkSettings,
    classes: Sequence[str],
    derive_from: Derivations | None = None,
) -> tuple[torch.Tensor, torch.Tensor, Receipt]:
    """Logits of the source and of the network it was transferred to, in double."""
    source, target = random_network(settings, len(SOURCE), seed=1), fresh(settings, classes)
    receipt = load(settings, target, saved(path, source, SOURCE), classes, derive_from)
    return logits(source), logits(target), receipt


def _same(a: torch.Tensor, b: torch.Tensor) -> None:
    # The network computes in double, with weights that are rounded to single.
    assert_equal_up_to_rounding(a, b, precision=torch.float32)


def test_every_network_is_tested() -> None:
    assert {settings.name for settings in SETTINGS} == set(BUILDERS)


@every_network
def test_same_classes_load_everything(tmp_path: Path, settings: NetworkSettings) -> None:
    before, after, receipt = _moved(tmp_path, settings, SOURCE)
    assert torch.equal(before, after)
    assert {entry.status for entry in receipt.entries} == {"loaded"}
    assert receipt.share_tensors == receipt.share_parameters == 1
    assert not receipt.unused
    assert not receipt.dropped


@every_network
def test_permuted_classes_give_permuted_logits(tmp_path: Path, settings: NetworkSettings) -> None:
    classes = ("background", "C", "A", "B")
    before, after, receipt = _moved(tmp_path, settings, classes)
    _same(after, before[:, [0, 3, 1, 2]])
    assert {e.status for e in receipt.entries if not e.trunk} == {"remapped"}


@every_network
def test_split_leaves_every_probability(tmp_path: Path, settings: NetworkSettings) -> None:
    classes = ("background", "front", "B", "A", "C", "back")
    before, after, _ = _moved(tmp_path, settings, classes, {"front": "A", "back": "A"})
    p, q = before.softmax(1), after.softmax(1)
    _same(q[:, [1, 3, 5]].sum(1), p[:, 1])
    _same(q[:, [0, 2, 4]], p[:, [0, 2, 3]])
    _same(q[:, 1], q[:, 5])


@every_network
def test_new_classes_come_out_of_the_background(tmp_path: Path, settings: NetworkSettings) -> None:
    classes = ("background", "A", "new", "B", "C", "newer")
    before, after, receipt = _moved(tmp_path, settings, classes)
    p, q = before.softmax(1), after.softmax(1)
    _same(q[:, [0, 2, 5]].sum(1), p[:, 0])
    _same(q[:, [1, 3, 4]], p[:, 1:])
    _same(q[:, 1] / q[:, 3], p[:, 1] / p[:, 2])
    assert [r.rule for r in receipt.channels if r.target.startswith("new")] == [
        "from background"
    ] * 2


@pytest.mark.parametrize("settings", [UNET, DYNUNET], ids=lambda s: s.name)
def test_merged_channel_is_too_low_by_log_cosh_of_half_the_difference(
    tmp_path: Path, settings: NetworkSettings
) -> None:
    classes = ("background", "A or B", "C")
    before, after, receipt = _moved(tmp_path, settings, classes, {"A or B": ["A", "B"]})
    a, b = before[:, 1], before[:, 2]
    _same(after[:, 1], torch.logaddexp(a, b) - ((a - b) / 2).cosh().log())
    _same(after[:, [0, 2]], before[:, [0, 3]])
    assert receipt.channels[1].rule == "merged"
    assert "log cosh" in receipt.channels[1].line()


@every_network
def test_every_head_obeys(tmp_path: Path, settings: NetworkSettings) -> None:
    """Those of deep supervision too, whose logits are seen in training only."""
    classes = ("background", "front", "B", "back", "new", "C")
    source, target = random_network(settings, len(SOURCE), seed=1), fresh(settings, classes)
    checkpoint = saved(tmp_path, source, SOURCE)
    load(settings, target, checkpoint, classes, {"front": "A", "back": "A"})
    parent = torch.tensor([0, 1, 2, 1, 0, 3])
    heads = list(zip(_training_logits(source), _training_logits(target), strict=True))
    assert (len(heads) > 1) == getattr(settings, "deep_supervision", False)
    for before, after in heads:
        p, q = before.softmax(1), after.softmax(1)
        _same(torch.zeros_like(p).index_add(1, parent, q), p)


@torch.no_grad()
def _training_logits(anatomy: Anatomy) -> tuple[torch.Tensor, ...]:
    network = anatomy.network.double().train()
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    out = network(image(anatomy))
    return out.unbind(dim=1) if out.dim() == 6 else (out,)
