"""What a training or validation step works on, made of preprocessed cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from hsf_finetune.config.settings.preprocessing_settings import PaddingMode
from hsf_finetune.data.augment.mixing import Mixture
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.loading.epoch_sampler import CaseDraw
from hsf_finetune.data.loading.patches import choose_patch_corner
from hsf_finetune.data.loading.sample_store import SampleStore
from hsf_finetune.data.preprocessing.load_case import Sample
from hsf_finetune.data.preprocessing.resampling import Triple
from hsf_finetune.labels.classes import BACKGROUND_ROW
from hsf_finetune.networks.padding import Padding, pad_to, padded_shape

Augment = Callable[
    [Tensor, Tensor, Tensor, tuple[float, float, float], int], tuple[Tensor, Tensor, Tensor]
]
"""`(image, label, allowed, spacing_mm, seed)` of one volume -> changed image, label, allowed."""


class Batch(TypedDict):
    """The tensors of a step, and what they belong to.

    image: (B, C, X, Y, Z) float32; label: label rows (B, X, Y, Z) uint8;
    allowed: (B, rows, classes) bool, the label rows' sets of classes, padded
    with empty rows; spacing: voxel sizes (B, 3) in mm; case: names; seed: for
    everything random about the batch; mixture: where mixup is on.
    """

    image: Tensor
    label: Tensor
    allowed: Tensor
    spacing: Tensor
    case: list[str]
    seed: int
    mixture: NotRequired[Mixture]


@dataclass(frozen=True)
class BatchItem:
    """One volume of a batch, before it is padded.

    Args:
        sample: image and label rows.
        allowed: the label rows' sets of classes, (rows, classes) bool.
        case: name of the case.
        seed: for everything random about the sample.
    """

    sample: Sample
    allowed: Tensor
    case: str
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TrainingCases(Dataset[BatchItem]):
    """Training volumes, or patches of those that are larger than a patch.

    Args:
        store: the cache of preprocessed cases.
        cases: those that train.
        patch_vox: largest size of the result, (X, Y, Z).
        foreground_share: share of patches centred on a labelled voxel.
        augment: changes each volume in the loader, if any.
    """

    store: SampleStore
    cases: Sequence[Case]
    patch_vox: Triple
    foreground_share: float
    augment: Augment | None = None

    def __getitem__(self, draw: CaseDraw) -> BatchItem:
        """The volume of a drawn case, cut to a patch if it is larger."""
        case = self.cases[draw.index]
        sample, protocol = self.store.sample(case), case.protocol
        corner = choose_patch_corner(
            sample.label,
            self.patch_vox,
            self.foreground_share,
            torch.from_numpy(protocol.foreground_rows),
            torch.from_numpy(protocol.informative_rows),
            draw.seed,
        )
        cut = (slice(None), *(slice(a, a + n) for a, n in zip(corner, self.patch_vox, strict=True)))
        image, label, spacing_mm = sample.image[cut], sample.label[cut[1:]], sample.spacing_mm
        allowed = torch.from_numpy(protocol.matrix)
        if self.augment is not None:
            image, label, allowed = self.augment(image, label, allowed, spacing_mm, draw.seed)
        return BatchItem(Sample(image, label, spacing_mm), allowed, case.name, draw.seed)


@dataclass(frozen=True, eq=False)
class WholeCases(Dataset[BatchItem]):
    """Whole volumes of cases, unchanged; the store is the cache of preprocessed cases."""

    store: SampleStore
    cases: Sequence[Case]

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> BatchItem:
        case = self.cases[index]
        allowed = torch.from_numpy(case.protocol.matrix)
        return BatchItem(self.store.sample(case), allowed, case.name)


def stack_items(
    items: Sequence[BatchItem],
    divisor: Triple,
    padding: Padding = "both",
    least: Triple = (1, 1, 1),
    mode: PaddingMode = "zeros",
) -> Batch:
    """The batch of some volumes, padded to a common size, and to `least`.

    Padded voxels are background in the label and, by default, 0 (the mean) in the image. The batch's sizes
    are multiples of `divisor`, so that the network can halve them.
    """
    shapes = [least, *(item.sample.label.shape for item in items)]
    shape = padded_shape([max(sizes) for sizes in zip(*shapes, strict=True)], divisor)
    rows = max(len(item.allowed) for item in items)
    return Batch(
        image=torch.stack([pad_to(item.sample.image, shape, 0.0, padding, mode) for item in items]),
        label=torch.stack(
            [pad_to(item.sample.label, shape, BACKGROUND_ROW, padding) for item in items]
        ),
        allowed=torch.stack([pad(i.allowed, (0, 0, 0, rows - len(i.allowed))) for i in items]),
        spacing=torch.tensor([item.sample.spacing_mm for item in items]),
        case=[item.case for item in items],
        seed=items[0].seed,
    )
