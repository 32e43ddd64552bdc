"""Cohorts drawn in different protocols train one network in one run, in mixed batches."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hsf_finetune.config.compose import compose
from hsf_finetune.data.phantom.phantom_image import make_phantom
from hsf_finetune.data.phantom.phantom_protocol import AnnotationProtocol, ProtocolRule
from hsf_finetune.data.phantom.phantom_shape import SUBFIELDS
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.system.errors import UserError
from tests.conftest import CONF, FAST, save_nifti, tiny_case

SHAPE_VOX, SPACING_MM = (24, 36, 24), 1.5
SUBICULUM = ("SUB", "PRESUB", "PARASUB")
ALL = tuple(SUBFIELDS)
TAIL, HEAD = (0.0, 0.25), (0.7, 1.0)


def apart(*names: str) -> list[ProtocolRule]:
    return [ProtocolRule(n, name, (name,)) for n, name in enumerate(names, start=1)]


# HSF's way of writing four protocols: its ca_type, its names, its HEAD and TAIL.
PROTOCOLS = {
    "hiplay": (
        "1/2/3",
        AnnotationProtocol((*apart("DG", "CA1", "CA2", "CA3"), ProtocolRule(5, "SUB", SUBICULUM))),
    ),
    "memodev": (
        "1/23",
        AnnotationProtocol(
            (
                *apart("DG", "CA1"),
                ProtocolRule(3, "CA2/3", ("CA2", "CA3")),
                ProtocolRule(4, "SUB", SUBICULUM),
            )
        ),
    ),
    "bernasconi": (
        "123",
        AnnotationProtocol(
            (
                ProtocolRule(1, "DG", ("DG",)),
                ProtocolRule(2, "CA", ("CA1", "CA2", "CA3")),
                ProtocolRule(3, "SUB", SUBICULUM),
                ProtocolRule(4, "TAIL", ALL, TAIL),
            )
        ),
    ),
    "cind": (
        "1/2/3",
        AnnotationProtocol(
            (
                *apart("DG", "CA1", "CA2", "CA3"),
                ProtocolRule(5, "SUB", SUBICULUM),
                ProtocolRule(6, "HEAD", ALL, HEAD),
                ProtocolRule(7, "TAIL", ALL, TAIL),
            )
        ),
    ),
}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people for each of four protocols, and the YAML in HSF's form that describes them."""
    root = tmp_path_factory.mktemp("cohorts")
    described: dict[str, Any] = {}
    for number, (name, (ca_type, protocol)) in enumerate(PROTOCOLS.items()):
        for person in range(2):
            phantom = make_phantom(0, 10 * number + person, "left", "T2w", SHAPE_VOX, SPACING_MM)
            folder = root / name / f"sub-{person}"
            label = protocol.encode(phantom.subfields, phantom.axis_position)
            save_nifti(folder / "t2_left.nii.gz", phantom.image, phantom.affine)
            save_nifti(folder / "seg_left.nii.gz", label, phantom.affine)
        described[name] = {
            "path": name,
            "ca_type": ca_type,
            "patterns": {"left_t2": {"mri": "**/t2_left.nii.gz", "label": "seg_left.nii.gz"}},
            "labels": {value: value for value in protocol.labels_names},
            "labels_names": dict(protocol.labels_names),
        }
    config = {"batch_size": 4, "train_ratio": 0.5, "cache": "memory", "datasets": described}
    (root / "conf" / "datasets").mkdir(parents=True)
    (root / "conf" / "datasets" / "several.yaml").write_text(
        yaml.safe_dump(config, sort_keys=False)
    )
    return root


def several(root: Path, outputs: Path, *more: str) -> Any:
    return compose(
        "train",
        [
            "datasets=several",
            f"datasets.main_path={root}",
            f"datasets.output_path={outputs}",
            "datasets.train_val_test_idx=[[0,2,4,6],[1,3,5,7]]",
            "lightning.max_epochs=2",
            *FAST,
            *more,
        ],
        root / "conf",
    )


def test_hsfs_protocols_train_together(
    cohorts: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_experiment(several(cohorts, outputs, "models.use_forgiving_loss=True"))
    said = capsys.readouterr().out
    assert "classes: background, DG, CA1, CA2, CA3, SUB" in said
    assert "Label census" in said
    assert "Dice of each dataset in its own protocol" in said
    with (result.folder / "census.csv").open() as file:
        census = {
            (row["side"], row["dataset"], row["class_name"]): row for row in csv.DictReader(file)
        }
    assert len(census) == 2 * 4 * 6
    assert int(census["train", "hiplay", "CA2"]["exact_cases"]) == 1
    merged = census["train", "memodev", "CA2"]
    assert (merged["exact_cases"], merged["set_cases"]) == ("0", "1")
    assert merged["set_voxels"] == census["train", "memodev", "CA3"]["set_voxels"]
    scored: dict[str, set[str]] = {}
    for row in result.after:
        scored.setdefault(row.dataset, set()).add(row.score.class_name)
    assert scored == {
        name: set(protocol.labels_names.values()) for name, (_, protocol) in PROTOCOLS.items()
    }
    card = torch.load(result.folder / "checkpoints" / "best.ckpt", weights_only=True)
    values = {"background": 0, "DG": 1, "CA1": 2, "CA2": 3, "CA3": 4, "SUB": 5}
    assert card["hsf_finetune"]["label_values"] == values
    assert json.loads(result.folder.joinpath("result.json").read_text())["best_epoch"]


def test_without_the_forgiving_loss_the_error_says_what_to_set(
    cohorts: Path, outputs: Path
) -> None:
    with pytest.raises(UserError, match=r"(?s)'memodev': CA2/3.*models.use_forgiving_loss=True"):
        run_experiment(several(cohorts, outputs))
    assert not outputs.exists()


def test_a_run_may_use_a_part_of_the_models_classes(cohorts: Path, outputs: Path) -> None:
    more = ("models.use_forgiving_loss=True", "models.labels_names=[DG,CA1,CA2,CA3,SUB,KYST]")
    without_head = (*more, "~datasets.datasets.cind", "datasets.train_val_test_idx=[[0,2,4],[1]]")
    with pytest.raises(UserError, match="shows KYST"):
        run_experiment(several(cohorts, outputs, *without_head))
    assert not outputs.exists()
    result = run_experiment(
        several(cohorts, outputs, *without_head, "datasets.allow_unsupervised=[KYST]",
                "lightning.max_epochs=1", "models.loss=focal_tversky", "models.batch_dice=true",
                "models.class_weights={CA2: 2.0}")
    )  # fmt: skip
    assert result.after


def test_a_few_labelled_slices_train(tmp_path: Path, outputs: Path) -> None:
    for number in range(1, 5):
        image, label = tiny_case(number)
        label[label == 0] = 5
        sparse = np.full_like(label, 0)
        sparse[:, ::8] = label[:, ::8]
        folder = tmp_path / "tiny" / f"sub-{number:02d}"
        save_nifti(folder / f"sub-{number:02d}_T2w.nii.gz", image)
        save_nifti(folder / f"sub-{number:02d}_dseg.nii.gz", label if number > 2 else sparse)
    settings = compose(
        "train",
        [
            "datasets=tiny",
            f"datasets.main_path={tmp_path}",
            f"datasets.output_path={outputs}",
            "datasets.train_val_test_idx=[[0,1],[2,3]]",
            "datasets.datasets.tiny.labels.5=0",
            "+datasets.datasets.tiny.ignore=[0]",
            "datasets.patch_vox=[16,16,16]",
            "datasets.k_sample=16",
            "models.use_forgiving_loss=True",
            "models.lr=1e-2",
            "lightning.max_epochs=4",
            "finetuning.ema_decay=null",
            *FAST,
        ],
        CONF,
    )
    after = run_experiment(settings).after
    assert [row.score.class_name for row in after] == ["anterior", "posterior"] * 2
    assert np.mean([row.score.dice for row in after]) > 0.5
