"""Labels of a teacher are label sets, and the loss takes them as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hsf_finetune.data.volumes.read_volume import Volume, VolumeRef, read_volume
from hsf_finetune.experiment.pseudo_labels import SetValues, label_scans, pseudo_values
from hsf_finetune.labels.classes import ClassSpace, LabelMap
from hsf_finetune.labels.protocols import read_label_map
from hsf_finetune.planning.unlabelled import UnlabelledScan
from hsf_finetune.training.losses import LabelSetLoss
from tests.conftest import save_nifti, tiny_case

CLASSES = ("background", "a", "b", "c")
VALUES = pseudo_values(CLASSES, {"background": 0, "a": 3, "b": 5, "c": 4})


def label_map(values: npt.NDArray[np.generic]) -> LabelMap:
    seen = {int(value) for value in np.unique(values)}
    return read_label_map("taught", VALUES.describe(seen, ".", Path("t")), ClassSpace(CLASSES))


def gradient(rows: npt.NDArray[np.uint8], protocol: LabelMap, name: str) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(1, len(CLASSES), *rows.shape, generator=random).requires_grad_()
    allowed = torch.from_numpy(protocol.matrix)[None]
    LabelSetLoss(name)(logits, torch.from_numpy(rows)[None], allowed).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("loss", ["dice_ce", "focal_tversky"])
def test_a_perfect_teacher_gives_the_gradient_of_true_labels(loss: str) -> None:
    truth = np.random.default_rng(0).integers(0, len(CLASSES), (5, 4, 6))
    values = VALUES.encode(np.moveaxis(np.eye(len(CLASSES))[truth], -1, 0), 0.05)
    raw = np.array([VALUES.single[name] for name in CLASSES])[truth]
    supervised = LabelMap.from_sets(
        ClassSpace(CLASSES), {value: [name] for name, value in VALUES.single.items()}
    )
    taught = label_map(values)
    wanted = gradient(supervised.rows(raw), supervised, loss)
    assert torch.equal(gradient(taught.rows(values.astype(np.int64)), taught, loss), wanted)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.97, 0.01, 0.01, 0.01], {"background"}),
        ([0.02, 0.90, 0.02, 0.06], {"a", "c"}),
        ([0.40, 0.60, 0.00, 0.00], {"background", "a"}),
        ([0.30, 0.30, 0.38, 0.02], {*CLASSES}),
    ],
)
def test_a_voxel_may_be_what_is_plausible(probabilities: list[float], expected: set[str]) -> None:
    values = VALUES.encode(np.array(probabilities).reshape(-1, 1, 1, 1), 0.05)
    rows = label_map(values).rows(values.astype(np.int64))
    assert label_map(values).row_sets[int(rows.item())] == expected


def test_a_threshold_of_one_half_makes_the_most_probable_class() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (3, 4, 5)).transpose(3, 0, 1, 2)
    values = VALUES.encode(probabilities, 0.5)
    single = np.array([VALUES.single[name] for name in CLASSES])
    assert np.array_equal(values, single[probabilities.argmax(axis=0)])


def test_many_classes_keep_within_the_values_of_a_label_map() -> None:
    names = ("background", *map(str, range(100)))
    values = SetValues(names, {name: n for n, name in enumerate(names)})
    assert (values.pairs, values.unknown) == ({}, 101)


class CountingTeacher:
    """Knows the tiny cohort, and counts the scans that it is given."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, scan: list[VolumeRef]) -> list[Volume]:
        return [read_volume(ref) for ref in scan]

    def mean_probabilities(self, volumes: Sequence[Volume], calibrated: bool) -> torch.Tensor:
        assert calibrated
        self.count += 1
        label = torch.from_numpy((np.asarray(volumes[0].array) > 130).astype(np.int64))
        return torch.nn.functional.one_hot(label, 4).movedim(-1, 0).float()


def test_what_is_labelled_is_not_labelled_again(tmp_path: Path) -> None:
    paths = [save_nifti(tmp_path / f"{n}.nii.gz", tiny_case(n)[0]) for n in (1, 2, 3)]
    scans = [UnlabelledScan(path.stem, path.stem, (VolumeRef(path),)) for path in paths]
    first, second = CountingTeacher(), CountingTeacher()
    folder = tmp_path / "labels"
    label_scans(folder, scans[:2], lambda: first, VALUES, 0.05)
    (folder / "labels.json").unlink()  # as if it had been killed before the third
    found = label_scans(folder, scans, lambda: second, VALUES, 0.05)
    assert (first.count, second.count, found.count) == (2, 1, 3)
    again = label_scans(folder, scans, CountingTeacher, VALUES, 0.05)
    assert again.seen == {0, 3}
