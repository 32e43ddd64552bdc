"""Mixup and CutMix of the volumes of a batch, whose labels are sets of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings

Box = tuple[slice, slice, slice]

_STREAM = 1
"""Distinguishes the random numbers of mixing from those of the other changes of a batch."""


@dataclass(frozen=True)
class Mixture:
    """How the cases of a batch are mixed: each with the one `shift` places before it.

    Args:
        shift: at least 1, and less than there are cases.
        share: of a case in its mixup with the other; 1 is none.
        box: voxels that CutMix takes from the other case; None is none.
    """

    shift: int
    share: float = 1.0
    box: Box | None = None


@dataclass(frozen=True)
class BatchMixing:
    """Mixes batches, as often and as strongly as the settings say."""

    settings: AugmentationSettings

    def __call__(
        self, image: Tensor, label: Tensor, allowed: Tensor, seed: int
    ) -> tuple[Tensor, Tensor, Tensor, Mixture | None]:
        """Applies CutMix, then mixup; arguments are those of `cut_and_paste`, and the batch's seed.

        The labels of mixup are not mixed: a prediction has the loss of either case's label,
        weighted by their shares, since a mean of sets of classes is no set.

        Returns:
            New image, label and sets, and what mixup did: None where its probability is 0.
        """
        size, *shape = label.shape
        mixture = draw_mixture(self.settings, size, shape, seed)
        if mixture.box is not None:
            image, label, allowed = cut_and_paste(image, label, allowed, mixture)
        # Also told where nothing is mixed: all processes have to compute as many losses.
        told = mixture if self.settings.mixup_p > 0 else None
        return mix_images(image, mixture), label, allowed, told


def draw_mixture(
    settings: AugmentationSettings, cases: int, shape: list[int], seed: int
) -> Mixture:
    """Draws how a batch is mixed; a batch of one case is not.

    The share is of Beta(alpha, alpha), as in "mixup" (Zhang et al., ICLR 2018) and "CutMix"
    (Yun et al., ICCV 2019). CutMix's box has a uniform centre and, within the volume, sides in
    the ratio of the volume's, so that it would hold the other case's share of the voxels.

    Args:
        settings: probabilities, and the alphas.
        cases: in the batch.
        shape: of the volumes, [X, Y, Z].
        seed: of the batch.
    """
    random = np.random.default_rng([seed, _STREAM])
    does_mixup, does_cutmix = random.random(2) < (settings.mixup_p, settings.cutmix_p)
    share, kept = (random.beta(a, a) for a in (settings.mixup_alpha, settings.cutmix_alpha))
    centre = random.random(3)
    if cases < 2:
        return Mixture(0)
    half = (1 - kept) ** (1 / 3) / 2
    ends = np.array([centre - half, centre + half]).clip(0, 1)
    low, high = np.rint(ends * shape).astype(int).tolist()
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    return Mixture(
        int(random.integers(1, cases)),
        float(share) if does_mixup else 1.0,
        box if does_cutmix else None,
    )


def mix_images(image: Tensor, mixture: Mixture) -> Tensor:
    """Images (B, C, X, Y, Z), each with its share of the other one."""
    if mixture.share == 1:
        return image
    return image.lerp(image.roll(mixture.shift, 0), 1 - mixture.share)


def cut_and_paste(
    image: Tensor, label: Tensor, allowed: Tensor, mixture: Mixture
) -> tuple[Tensor, Tensor, Tensor]:
    """CutMix: the voxels in the box, and what their labels mean, come from the other case.

    Label arrays instead of shares, as for segmentation in French et al., "Semi-supervised
    semantic segmentation needs strong, varied perturbations" (BMVC 2020).

    Args:
        image: (B, C, X, Y, Z).
        label: label rows (B, X, Y, Z).
        allowed: the label rows' sets of classes, (B, R, classes) bool.
        mixture: with a box.

    Returns:
        Image, label rows in int16 and (B, 2 R, classes) sets: a case's own rows, then those of
        the other whose sets it does not have. Equal sets share a row, so that each counts once
        in the loss; rows that are left over are empty.
    """
    assert mixture.box is not None
    inside = (..., *mixture.box)
    both = torch.cat([allowed, allowed.roll(mixture.shift, 0)], dim=1)
    same = (both[:, :, None] == both[:, None]).all(dim=3)
    row_of_set = same.to(torch.uint8).argmax(dim=2)  # the first of those that are equal
    rows = label.long()
    rows[inside] = rows.roll(mixture.shift, 0)[inside] + allowed.shape[1]
    rows = row_of_set.gather(1, rows.flatten(1)).view_as(rows)
    first = row_of_set == torch.arange(row_of_set.shape[1], device=label.device)
    image = image.clone()
    image[inside] = image.roll(mixture.shift, 0)[inside]
    return image, rows.to(torch.int16), both & first[:, :, None]
