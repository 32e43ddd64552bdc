"""The source model as the teacher of its own classes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.training.module import SegmentationModule


def distillation_loss(
    student: Tensor, teacher: Tensor, groups: Tensor, labels: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """How far the student is from what the teacher says of its classes, a scalar.

    Kullback-Leibler divergence (nats) of the probabilities of groups of classes, which mean the
    same to both: learning without forgetting (Li and Hoiem, ECCV 2016), where a new class
    counts with that which it comes out of (Cermelli et al. 2020, arXiv:2002.00718, eq. 8).

    Args:
        student: logits (B, C, X, Y, Z).
        teacher: logits of the same shape.
        groups: which classes are in which group, (G, C) bool; each is in one.
        labels: for the mean over the voxels whose label allows classes of several groups, since
            elsewhere the label tells more than the teacher: label rows, (B, X, Y, Z) uint8, and
            their sets of classes, (B, R, C) bool. None is the mean over all voxels.
    """
    of_class = groups.to(torch.float32).argmax(dim=0)
    wanted = torch.zeros(
        (len(student), len(groups), *student.shape[2:]), device=student.device
    ).index_add_(1, of_class, teacher.float().softmax(dim=1))
    log_p = student.float().log_softmax(dim=1)
    found = torch.stack([log_p[:, group].logsumexp(dim=1) for group in groups], dim=1)
    divergence = (wanted * (wanted.clamp_min(1e-12).log() - found)).sum(dim=1)
    if labels is None:
        return divergence.mean()
    rows, allowed = labels
    touched = (allowed[:, :, None] & groups).any(dim=3).sum(dim=2)
    is_open = (touched > 1).gather(1, rows.flatten(1).long()).view_as(divergence)
    return (divergence * is_open).sum() / is_open.sum().clamp_min(1)


@dataclass(eq=False)
class OldClassesTeacher(Callback):
    """Adds `distillation_loss` to the loss, with the network as the run found it as the teacher.

    Args:
        groups: channels of the network that mean one class of the source together; empty for
            a run that is resumed.
        strength: factor of the term.
        file: keeps the teacher for a resume.
        everywhere: whether it counts where labels tell the classes of the source too.
    """

    groups: Sequence[Sequence[int]]
    strength: float
    file: Path
    everywhere: bool = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the teacher of a new run, and reads that of a resumed one.

        Raises:
            WeightsError: the teacher of a resumed run is missing.
        """
        assert isinstance(pl_module, SegmentationModule)
        network = copy.deepcopy(pl_module.network).requires_grad_(False).eval()
        groups = [[*group] for group in self.groups]
        if not groups:
            if not self.file.exists():
                raise WeightsError(
                    "the source model that teaches the old classes is missing, so that the run "
                    "cannot be resumed",
                    file=self.file,
                    fix="put it back, or start a new run",
                )
            kept = torch.load(self.file, map_location="cpu", weights_only=True)
            groups = kept["groups"]
            network.load_state_dict(kept["network"])
        elif trainer.is_global_zero:
            with atomic_write(self.file) as temporary:
                torch.save({"groups": groups, "network": network.state_dict()}, temporary)
        matrix = torch.zeros((len(groups), sum(map(len, groups))), dtype=torch.bool)
        for number, group in enumerate(groups):
            matrix[number, group] = True
        pl_module.further_loss = self._make_term(network, matrix.to(pl_module.device))

    def _make_term(self, network: nn.Module, groups: Tensor) -> Any:
        def term(batch: Any, logits: Tensor) -> Tensor:
            with torch.no_grad():
                taught = network(batch["image"])
            labels = None if self.everywhere else (batch["label"], batch["allowed"])
            return self.strength * distillation_loss(logits, taught, groups, labels)

        return term
