"""The source model beside its own transfer, on one case, before any training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.evaluation.head_check import (
    ClassGroup,
    HeadCheck,
    HeadCheckRow,
    group_classes,
)
from hsf_finetune.planning.setup import Setup, prepare
from hsf_finetune.planning.source_model import check_new_head
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.transfer.class_rules import make_class_rules
from tests.conftest import CONF, FAST

SOURCE = ("background", "A", "B", "C", "D")
SPLIT = "finetuning.derive_from={anterior: blob, posterior: blob}"


def _groups(target: tuple[str, ...], derive_from: dict[str, str | list[str]]) -> list[ClassGroup]:
    return group_classes(make_class_rules(target, SOURCE, len(SOURCE), derive_from), SOURCE)


def test_classes_are_compared_as_finely_as_both_heads_allow() -> None:
    target = ("background", "back", "front", "new", "A", "B+C")
    derive_from: dict[str, str | list[str]] = {"front": "D", "back": "D", "B+C": ["B", "C"]}
    assert _groups(target, derive_from) == [
        ClassGroup("background", (0,), (0, 3)),
        ClassGroup("A", (1,), (4,)),
        ClassGroup("B + C", (2, 3), (5,)),
        ClassGroup("D", (4,), (1, 2)),
    ]


def test_a_chain_of_shared_classes_is_one_group() -> None:
    groups = _groups(("background", "x", "y"), {"x": ["A", "B"], "y": ["B", "C"]})
    assert groups[1] == ClassGroup("A + B + C", (1, 2, 3), (1, 2))
    assert groups[2] == ClassGroup("D", (4,), ()), "dropped"


def test_groups_of_version_0_1_0_are_read() -> None:
    group = ClassGroup("A", (1, 2), (3,))
    assert ClassGroup.from_dict({"name": "A", "there": [1, 2], "here": [3]}) == group
    assert ClassGroup.from_dict({"name": "A", "source": [1, 2], "target": [3]}) == group


def _prepare(data: Path, source: Path, *overrides: str) -> Setup:
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
    return prepare(settings, discover(settings.datasets))


def _check(setup: Setup) -> HeadCheck | None:
    return check_new_head(setup, setup.cohort.cases[0])


def test_a_split_head_loses_nothing(data: Path, source_run: Path) -> None:
    setup = _prepare(data, source_run, SPLIT)
    found = _check(setup)
    assert found is not None
    (row,) = found.rows
    assert (row.name, row.targets) == ("blob", ("anterior", "posterior"))
    assert row.before == row.after > 0.5
    assert found.agreement == 1
    assert found.lines() == [
        f"source model on {setup.cohort.cases[0].name}: its own head and the new one agree on "
        "100 % of the voxels",
        f"  blob: Dice {row.before:.3f} by its own head, {row.after:.3f} by the new one "
        "(anterior + posterior)",
    ]


def test_a_damaged_head_shows(data: Path, source_run: Path) -> None:
    setup = _prepare(data, source_run, SPLIT)
    with torch.no_grad():
        setup.anatomy.network.get_parameter("head.bias")[1:] -= 10
    found = _check(setup)
    assert found is not None
    assert found.agreement < 0.99
    assert found.rows[0].after < found.rows[0].before - 0.1


def test_nothing_to_compare(data: Path, source_run: Path) -> None:
    assert _check(_prepare(data, source_run, "finetuning.head=fresh")) is None
    assert _check(_prepare(data, source_run)) is None, "both classes came out of the background"


def test_almost_all_voxels_are_not_all() -> None:
    line = HeadCheck("a", (HeadCheckRow("A", ("A",), 0.5, 0.5),), 1 - 1e-7).lines()
    assert "99.99 %" in line[0]
    assert line[1].endswith("0.500 by the new one")


def test_the_channels_are_named_in_the_dataset(data: Path, source_run: Path) -> None:
    with pytest.raises(ConfigError, match="channel_names should have one name"):
        _prepare(data, source_run, "datasets.channel_names=[T1w, T2w]")


def test_a_second_channel_starts_with_zero_weights(own_data: Path, source_run: Path) -> None:
    for scan in list(own_data.glob("tiny/*/*_T2w.nii.gz")):
        shutil.copy(scan, scan.with_name(scan.name.replace("T2w", "T1w")))
    two = (
        SPLIT,
        "datasets.datasets.tiny.patterns.t2.mri=['sub-*/*_T1w.nii.gz','*_T2w.nii.gz']",
        "datasets.channel_names=[T1w,T2w]",
        "finetuning.source_channels=[T2w]",
    )
    with pytest.raises(ConfigError, match="no counterpart for input channel T1w"):
        _prepare(own_data, source_run, *two)
    one, both = (
        _check(setup)
        for setup in (
            _prepare(own_data, source_run, SPLIT),
            _prepare(own_data, source_run, *two, "finetuning.input_channels=zero"),
        )
    )
    assert one is not None
    assert both is not None
    assert both.rows[0].after == pytest.approx(one.rows[0].after, abs=1e-3)
