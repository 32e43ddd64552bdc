"""Left-right flips exchange classes that form pairs, and stop where a partner is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.augment.batch_augmentation import BatchAugmentation
from hsf_finetune.data.augment.flips import (
    LabelPlaces,
    exchange_classes,
    plan_flips,
    weigh_sides,
)
from hsf_finetune.data.augment.torchio_hsf import HsfPipeline
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.loading.sample_store import find_places
from hsf_finetune.data.preprocessing.load_case import Sample
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap
from hsf_finetune.system.errors import ConfigError

SIDED = ClassSpace((BACKGROUND, "L_CA1", "alveus", "R_CA1"))
PARTNERS = (0, 3, 2, 1)
NEVER = {f"{name}_p": 0.0 for name in ("affine", "elastic", "gamma", "bias", "blur", "noise")}
FLIP_ONLY = AugmentationSettings(flip_p=0.5, lowres_p=0.0, **NEVER)


def test_pairs_are_found_by_name_or_given() -> None:
    assert plan_flips(AugmentationSettings(), SIDED).partners == PARTNERS
    plain = ClassSpace((BACKGROUND, "one", "two"))
    assert plan_flips(AugmentationSettings(), plain) == plan_flips(
        AugmentationSettings(flip=True), plain
    )
    given = plan_flips(AugmentationSettings(lr_pairs=[["one", "two"]]), plain)
    assert (given.allowed, given.partners) == (True, (0, 2, 1))
    assert "one and two" in given.remark


def places(*drawn: dict[int, tuple[slice, ...]], names: tuple[str, ...]) -> list[LabelPlaces]:
    """Cases that draw boxes; value n is the n-th name."""
    space = ClassSpace((BACKGROUND, *names))
    protocol = LabelMap.from_sets(space, {n: [name] for n, name in enumerate(names, start=1)})
    found = []
    for number, boxes in enumerate(drawn):
        label = torch.zeros((40, 24, 20), dtype=torch.uint8)
        for value, box in boxes.items():
            label[box] = value
        image = VolumeRef(Path(f"{number}.nii"))
        case = Case(f"c{number}", f"s{number}", "lab", (image,), image, protocol)
        found.append(find_places(case, Sample(label[None].float(), label, (1.0, 1.0, 1.0))))
    return found


LEFT = (slice(4, 12), slice(5, 15), slice(5, 15))
RIGHT = (slice(26, 35), slice(6, 16), slice(5, 14))
FRONT = (slice(4, 12), slice(16, 23), slice(5, 15))
BESIDE = (slice(12, 20), slice(5, 15), slice(5, 15))


@pytest.mark.parametrize(
    ("drawn", "allowed"),
    [
        ([{1: LEFT, 2: RIGHT}, {1: LEFT, 2: RIGHT}], False),
        ([{1: LEFT, 2: RIGHT}, {1: LEFT}, {}], False),
        ([{1: RIGHT, 2: LEFT}], False),
        ([{1: LEFT, 2: RIGHT}, {1: RIGHT, 2: LEFT}], True),
        ([{1: LEFT, 2: FRONT}], True),
        ([{1: LEFT, 2: BESIDE}], True),
        ([{1: LEFT}, {2: RIGHT}], True),
    ],
)
def test_classes_on_opposite_sides_in_every_case_stop_unpaired_flips(
    drawn: list[dict[int, tuple[slice, ...]]], allowed: bool
) -> None:
    for names in (("one", "two"), ("SL", "SR")):
        space = ClassSpace((BACKGROUND, *names))
        evidence = weigh_sides(places(*drawn, names=names), space)
        plan = plan_flips(AugmentationSettings(), space, evidence)
        by_name = names == ("SL", "SR") and (not allowed or drawn == [{1: LEFT}, {2: RIGHT}])
        assert plan.partners == ((0, 2, 1) if by_name else None)
        assert plan.allowed == (allowed or by_name)
        assert plan_flips(AugmentationSettings(flip=True), space, evidence).allowed
        if not plan.allowed:
            assert "one" in plan.remark
            assert "two" in plan.remark


@pytest.mark.parametrize("names", [("DG", "CA1"), ("antL", "antR"), ("antL", "post")])
def test_whether_flips_are_on_is_always_said(names: tuple[str, ...]) -> None:
    space = ClassSpace((BACKGROUND, *names))
    for settings in (
        AugmentationSettings(),
        AugmentationSettings(flip=False),
        AugmentationSettings(flip=True),
        AugmentationSettings(pipeline="none"),
        AugmentationSettings(pipeline="torchio_hsf"),
    ):
        plan = plan_flips(settings, space)
        assert f"left-right flips: {'on' if plan.allowed else 'off'}" in plan.remark
        if plan.partners:
            assert all(name in plan.remark for name in names)


def test_a_side_without_a_partner_stops_flips_unless_they_are_asked_for() -> None:
    alone = ClassSpace((BACKGROUND, "L_CA1", "alveus"))
    stopped = plan_flips(AugmentationSettings(), alone)
    assert not stopped.allowed
    assert "L_CA1" in stopped.remark
    assert plan_flips(AugmentationSettings(flip=True), alone).allowed
    assert not plan_flips(AugmentationSettings(flip=False), SIDED).allowed
    assert not plan_flips(AugmentationSettings(lr_pairs=[]), SIDED).allowed


@pytest.mark.parametrize("pairs", [[["L_CA1", "CA9"]], [["L_CA1", "L_CA1"]]])
def test_pairs_must_be_classes(pairs: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="lr_pairs"):
        plan_flips(AugmentationSettings(lr_pairs=pairs), SIDED)


def meaning(rows: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """The allowed classes of each voxel, (X, Y, Z, classes)."""
    return allowed[rows.long()]


def test_a_flipped_batch_means_the_other_side_in_every_protocol() -> None:
    # The second protocol draws the left side only: it has no label row for the right one.
    exact = LabelMap.from_sets(SIDED, {1: ["L_CA1"], 2: ["alveus"], 3: ["R_CA1"]})
    partial = LabelMap.from_sets(SIDED, {0: [BACKGROUND, "R_CA1"], 1: ["L_CA1"], 2: ["alveus"]})
    allowed = torch.zeros(2, 4, 4, dtype=torch.bool)
    for case, protocol in enumerate((exact, partial)):
        allowed[case, : len(protocol.matrix)] = torch.from_numpy(protocol.matrix)
    rows = torch.randint(3, (2, 6, 4, 5), dtype=torch.uint8)
    image = rows[:, None].float()
    augment = BatchAugmentation(FLIP_ONLY, (0,), PARTNERS)
    seen = set()
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        after, labels, sets = augment(image, rows, allowed, generator)
        for case in range(2):
            flipped = not torch.equal(after[case], image[case])
            seen.add((case, flipped))
            expected = meaning(rows[case], allowed[case])
            if flipped:
                expected = expected.flip(0)[..., list(PARTNERS)]
            assert torch.equal(meaning(labels[case], sets[case]), expected)
    assert len(seen) == 4


def test_twice_exchanged_is_the_identity() -> None:
    allowed = torch.rand(2, 5, 4) < 0.5
    assert torch.equal(exchange_classes(exchange_classes(allowed, PARTNERS), PARTNERS), allowed)
    assert not torch.equal(exchange_classes(allowed, PARTNERS), allowed)


def test_hsfs_pipeline_exchanges_with_its_flip() -> None:
    pytest.importorskip("torchio")
    pipeline = HsfPipeline(True, PARTNERS)
    allowed = torch.from_numpy(np.eye(4, dtype=bool))
    rows = torch.zeros(12, 10, 8, dtype=torch.uint8)
    rows[:4] = 1
    seen = set()
    for seed in range(12):
        _, after, sets = pipeline(torch.randn(1, 12, 10, 8), rows, allowed, (1, 1, 1), seed)
        flipped = bool((after[8:] == 1).float().mean() > 0.5)
        assert torch.equal(sets, allowed[:, list(PARTNERS)] if flipped else allowed)
        seen.add(flipped)
    assert seen == {True, False}
