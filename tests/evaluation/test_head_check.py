"""The source model beside its own transfer, on one case, before any training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hsf_finetune.weights.transfer.channels import channel_rules

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.evaluation.head_check import Group, Smoke, SmokeRow, comparable
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.planning.start import (
    TransferResult,
    build_network,
    check_new_head,
    find_weights,
    load_weights,
)
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF, FAST

SOURCE = ("background", "A", "B", "C", "D")
SPLIT = "finetuning.derive_from={anterior: blob, posterior: blob}"


def _groups(target: tuple[str, ...], derive_from: dict[str, str | list[str]]) -> list[Group]:
    return comparable(channel_rules(target, SOURCE, len(SOURCE), derive_from), SOURCE)


def test_classes_are_compared_as_finely_as_both_heads_allow() -> None:
    target = ("background", "back", "front", "new", "A", "B+C")
    derive_from: dict[str, str | list[str]] = {"front": "D", "back": "D", "B+C": ["B", "C"]}
    assert _groups(target, derive_from) == [
        Group("background", (0,), (0, 3)),
        Group("A", (1,), (4,)),
        Group("B + C", (2, 3), (5,)),
        Group("D", (4,), (1, 2)),
    ]


def test_a_chain_of_shared_classes_is_one_group() -> None:
    groups = _groups(("background", "x", "y"), {"x": ["A", "B"], "y": ["B", "C"]})
    assert groups[1] == Group("A + B + C", (1, 2, 3), (1, 2))
    assert groups[2] == Group("D", (4,), ()), "dropped"


def _start(
    data: Path, source: Path, *overrides: str
) -> tuple[Settings, Cohort, Anatomy, TransferResult]:
    settings = compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            f"finetuning.pretrained={source}",
            *FAST,
            *overrides,
        ],
        CONF,
    )
    cohort = discover(settings.datasets)
    anatomy = build_network(settings, cohort)
    found = find_weights(settings, cohort, lambda: source)
    assert found is not None
    start = load_weights(settings, anatomy, cohort, found)
    assert start is not None
    return settings, cohort, anatomy, start


def _smoke(
    settings: Settings, cohort: Cohort, anatomy: Anatomy, start: TransferResult
) -> Smoke | None:
    case = cohort.cases[0]
    card = ModelCard(
        classes=cohort.classes.names,
        label_values=case.protocol.values_to_write(),
        models=settings.models,
        in_channels=cohort.channels,
        target_spacing_mm=None,
        window_vox=(16, 16, 16),
    )
    return check_new_head(settings, cohort, anatomy, start, card, case, torch.device("cpu"))


def test_a_split_head_loses_nothing(data: Path, source_run: Path) -> None:
    settings, cohort, anatomy, start = _start(data, source_run, SPLIT)
    found = _smoke(settings, cohort, anatomy, start)
    assert found is not None
    (row,) = found.rows
    assert (row.name, row.targets) == ("blob", ("anterior", "posterior"))
    assert row.before == row.after > 0.5
    assert found.agreement == 1
    assert found.lines() == [
        f"source model on {cohort.cases[0].name}: its own head and the new one agree on 100 % of "
        "the voxels",
        f"  blob: Dice {row.before:.3f} by its own head, {row.after:.3f} by the new one "
        "(anterior + posterior)",
    ]


def test_a_damaged_head_shows(data: Path, source_run: Path) -> None:
    settings, cohort, anatomy, start = _start(data, source_run, SPLIT)
    with torch.no_grad():
        anatomy.network.get_parameter("head.bias")[1:] -= 10
    found = _smoke(settings, cohort, anatomy, start)
    assert found is not None
    assert found.agreement < 0.99
    assert found.rows[0].after < found.rows[0].before - 0.1


def test_nothing_to_compare(data: Path, source_run: Path) -> None:
    assert _smoke(*_start(data, source_run, "finetuning.head=fresh")) is None
    assert _smoke(*_start(data, source_run)) is None, "both classes came out of the background"


def test_almost_all_voxels_are_not_all() -> None:
    line = Smoke("a", (SmokeRow("A", ("A",), 0.5, 0.5),), 1 - 1e-7).lines()
    assert "99.99 %" in line[0]
    assert line[1].endswith("0.500 by the new one")


def test_the_channels_are_named_in_the_dataset(data: Path, source_run: Path) -> None:
    with pytest.raises(ConfigError, match="channel_names should have one name"):
        _start(data, source_run, "datasets.channel_names=[T1w, T2w]")


def test_a_second_channel_starts_without_a_say(own_data: Path, source_run: Path) -> None:
    for scan in list(own_data.glob("tiny/*/*_T2w.nii.gz")):
        shutil.copy(scan, scan.with_name(scan.name.replace("T2w", "T1w")))
    two = (
        SPLIT,
        "datasets.datasets.tiny.patterns.t2.mri=['sub-*/*_T1w.nii.gz','*_T2w.nii.gz']",
        "datasets.channel_names=[T1w,T2w]",
        "finetuning.source_channels=[T2w]",
    )
    with pytest.raises(ConfigError, match="no counterpart for input channel T1w"):
        _start(own_data, source_run, *two)
    one, both = (
        _smoke(*start)
        for start in (
            _start(own_data, source_run, SPLIT),
            _start(own_data, source_run, *two, "finetuning.input_channels=zero"),
        )
    )
    assert one is not None
    assert both is not None
    assert both.rows[0].after == pytest.approx(one.rows[0].after, abs=1e-3)
