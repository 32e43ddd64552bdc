"""The source model as a teacher: what the term of the loss is, and what it keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.training.distillation import distillation_loss
from tests.conftest import CONF, FAST
from tests.experiment.test_retention import BLOB
from tests.training.killing import run_until_killed

GROUPS = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=torch.bool)
"""The background and class 3 come out of one class, classes 1 and 2 out of another."""
ALLOWED = torch.tensor([[[1, 1, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0]]], dtype=torch.bool)
"""Row 0 is open between the groups, rows 1 and 2 are not."""


def test_it_asks_for_the_sums_of_groups_where_labels_leave_them_open() -> None:
    teacher, rows = torch.zeros(1, 4, 1, 1, 3), torch.tensor([[[[0, 1, 2]]]], dtype=torch.uint8)
    # A student that moves probability within a group says the same as its teacher.
    within = torch.tensor([math.log(1.5), 0.0, 0.0, math.log(0.5)]).view(1, 4, 1, 1, 1)
    open_only = (GROUPS, (rows, ALLOWED))
    same = distillation_loss(teacher + within, teacher, *open_only)
    assert float(same) == pytest.approx(0, abs=1e-6)
    # One that has 3/4 for one group, of which the teacher has 1/2 each.
    student = torch.tensor([3.0, 1.0, 1.0, 3.0]).log().view(1, 4, 1, 1, 1).repeat(1, 1, 1, 1, 3)
    student.requires_grad_()
    loss = distillation_loss(student, teacher, *open_only)
    assert loss.item() == pytest.approx(math.log(0.5) - 0.5 * math.log(0.75 * 0.25), rel=1e-5)
    loss.backward()
    assert student.grad is not None
    moved = student.grad.abs().sum(dim=1).flatten() > 0
    assert moved.tolist() == [True, False, False]
    # Without labels every voxel asks for the same.
    assert distillation_loss(student, teacher, GROUPS).item() == pytest.approx(loss.item())
    half = torch.cat([student[..., :1], teacher[..., 1:]], dim=-1)
    assert distillation_loss(half, teacher, GROUPS).item() == pytest.approx(loss.item() / 3)


def settings_of(
    data: Path, run: Path, source: Path, *more: str, derive_from: str = "{front: blob}"
) -> Settings:
    """The front of the blob is drawn, and the rest of it is not."""
    return compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            "datasets.datasets.tiny.labels={10: 1, 20: 0}",
            "~datasets.datasets.tiny.labels_names",
            "+datasets.datasets.tiny.labels_names={1: front}",
            "models.labels_names=[blob, front]",
            "models.use_forgiving_loss=true",
            "+datasets.datasets.tiny.unannotated=[blob]",
            f"run_dir={run}",
            f"finetuning.pretrained={source}",
            f"finetuning.derive_from={derive_from}",
            "finetuning=full",
            "lightning.max_epochs=3",
            "models.lr=1e-2",
            "datasets.k_sample=8",
            "calibration=off",
            BLOB,
            *FAST,
            *more,
        ],
        CONF,
    )


KEEP = "finetuning.keep_old=distil"


def test_old_classes_are_kept_and_a_killed_run_keeps_its_teacher(
    data: Path, outputs: Path, source_run: Path
) -> None:
    plain = ("datasets.allow_unsupervised=[blob]", "~datasets.datasets.tiny.unannotated")
    lost = {}
    for name, more in {"plain": plain, "kept": (KEEP,)}.items():
        folder = run_experiment(settings_of(data, outputs / name, source_run, *more)).folder
        change = json.loads((folder / "result.json").read_text())["retention"]["change"]
        lost[name] = -change["mean"]["mean"]
    assert lost["kept"] < lost["plain"] - 0.1
    killed = settings_of(data, outputs / "killed", source_run, KEEP)
    run_until_killed(killed, 1)
    run_experiment(killed.model_copy(update={"resume": str(outputs / "killed")}))
    states = [
        torch.load(outputs / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("kept", "killed")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
