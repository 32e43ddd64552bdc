"""Weights without class names: by position where the numbers agree, also for the source model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.networks.build import build
from hsf_finetune.planning.setup import Setup, prepare
from hsf_finetune.planning.source_model import check_new_head
from tests.conftest import CONF, FAST

RETENTION = (
    "datasets.retention={old: {path: tiny, patterns: {t2: {mri: 'sub-*/*_T2w.nii.gz', "
    "label: 'sub-*/*_dseg.nii.gz'}}, labels: {10: 1, 20: 2}, "
    "labels_names: {1: anterior, 2: posterior}}}"
)


def prepared(data: Path, folder: Path, outputs: int, *more: str) -> Setup:
    """A run from the bare tensors of a network with so many outputs."""
    given = ["datasets=tiny", f"datasets.main_path={data}", *FAST, *more]
    network = build(compose("finetune", given, CONF).models, 1, outputs).network
    torch.save(network.state_dict(), folder / "plain.pt")
    settings = compose("finetune", [*given, f"finetuning.pretrained={folder / 'plain.pt'}"], CONF)
    return prepare(settings, discover(settings.datasets, settings.models), preview=True)


@pytest.mark.parametrize("more", [(), (RETENTION,)])
def test_as_many_outputs_as_classes_are_taken_by_position(
    data: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    setup = prepared(data, tmp_path, 3, *more)
    assert setup.transfer is not None
    assert {r.rule for r in setup.transfer.receipt.channels} == {"copied by position"}
    assert setup.transfer.source_classes == ("background", "anterior", "posterior")
    checked = check_new_head(setup, setup.split.validation[0])
    assert checked is not None
    assert checked.agreement == 1
    if more:
        assert setup.source_task is not None
        assert setup.source_task.classes == setup.transfer.source_classes


def test_another_number_of_outputs_starts_fresh(data: Path, tmp_path: Path) -> None:
    setup = prepared(data, tmp_path, 4)
    assert setup.transfer is not None
    (line,) = {rule.line() for rule in setup.transfer.receipt.channels}
    assert "4 channels" in line
    assert "'finetuning.source_classes=[background, ...]'" in line
    assert check_new_head(setup, setup.split.validation[0]) is None
