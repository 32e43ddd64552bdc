"""Random changes of a training batch, computed on the training device.

Changes are drawn on the CPU, apart from the images, so that a batch can be repeated bit
for bit. Every sample goes only through its own changes: flips are exact, affine and
elastic deformation share one resampling, gamma and bias field share one exponential,
blur and low resolution share one separable product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.augment.batch_changes import BatchChanges, draw_changes
from hsf_finetune.data.augment.flips import exchange_classes
from hsf_finetune.data.augment.intensity import change_intensity
from hsf_finetune.data.augment.spatial import change_geometry


def change_batch(
    image: Tensor, label: Tensor, changes: BatchChanges, *, spacing: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Changes a batch as drawn; the same changes give the same result on a device.

    Outside the volume, the image continues with its nearest border voxel and the label with
    background. Computed in float32, also under autocast.

    Args:
        image: (B, C, X, Y, Z) floating point.
        label: (B, X, Y, Z) uint8 label rows, on the image's device.
        changes: of B samples with C channels.
        spacing: (B, 3) voxel size along X, Y, Z on the CPU, so that anisotropic volumes
            rotate without shear; None is isotropic.

    Returns:
        New image and label of the same shapes and dtypes.
    """
    images, labels = [], []
    with torch.autocast(image.device.type, enabled=False):
        for i, (one, rows) in enumerate(zip(image.unbind(), label.unbind(), strict=True)):
            edges = torch.ones(3) if spacing is None else spacing[i]
            one, rows = change_geometry(one, rows, changes, i, edges)
            images.append(change_intensity(one, changes, i).to(image.dtype))
            labels.append(rows)
        return torch.stack(images), torch.stack(labels)


@dataclass(frozen=True)
class BatchAugmentation:
    """Draws the changes of batches and changes them.

    Args:
        settings: probabilities and magnitudes.
        flip_axes: axes (0, 1, 2) that may be reversed.
        partners: for each class, the one that it becomes in a flip along axis 0; None
            where flips change no class.
        measure_noise: whether the strength of noise is in standard deviations of each image;
            else in units of intensities, which z-scored images have in these.
    """

    settings: AugmentationSettings
    flip_axes: tuple[int, ...] = ()
    partners: tuple[int, ...] | None = None
    measure_noise: bool = False

    def __call__(
        self,
        image: Tensor,
        label: Tensor,
        allowed: Tensor,
        generator: torch.Generator,
        spacing: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augments a batch; image, label and spacing are those of `change_batch`.

        Label rows keep their numbers in a flip: what changes is their sets of classes,
        `allowed`, (B, rows, classes) bool, so that every protocol can be flipped. The
        generator, on the CPU, is that of the draw.

        Returns:
            New image, label and sets of the same shapes and dtypes.
        """
        size, channels = image.shape[:2]
        changes = draw_changes(self.settings, size, channels, self.flip_axes, generator)
        if self.measure_noise:
            changes.noise_std.mul_(image.float().std(dim=(2, 3, 4)).cpu())
        image, label = change_batch(image, label, changes, spacing=spacing)
        if self.partners is not None:
            flipped = changes.flip[:, 0, None, None].to(allowed.device)
            allowed = torch.where(flipped, exchange_classes(allowed, self.partners), allowed)
        return image, label, allowed
