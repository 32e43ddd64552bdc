"""Random changes of a training batch, computed on the device that trains.

Parameters are drawn on the CPU, apart from applying them, so that a batch can be
repeated bit for bit. Every sample goes only through what was drawn for it: flips are
exact, affine and elastic deformation share one resampling, gamma and bias field share
one exponential, blur and low resolution share one separable product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsf_finetune.config.settings import AugmentationSettings
from hsf_finetune.data.augment.intensity import intensity
from hsf_finetune.data.augment.parameters import Parameters
from hsf_finetune.data.augment.spatial import spatial

BIAS_POINTS = 4


def draw(
    settings: AugmentationSettings,
    batch_size: int,
    channels: int,
    flip_axes: Sequence[int],
    generator: torch.Generator,
) -> Parameters:
    """Draws the parameters of a batch.

    One number decides on both affine and elastic deformation, and one on both gamma and
    bias field: each keeps its own probability, but they fall on the same samples, which
    pay once for what the two share. Magnitudes are uniform between nothing and the
    setting; zoom and gamma are uniform in the logarithm. The same count of numbers is
    drawn whatever the probabilities.

    Args:
        settings: probabilities and magnitudes; `pipeline` and `flip` are the caller's to
            heed.
        batch_size: B.
        channels: C; each has its own intensity parameters.
        flip_axes: axes (0, 1, 2) that may be reversed; empty forbids flips.
        generator: on the CPU, so that the device does not change the draw.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(batch_size, *shape).uniform_(low, high, generator=generator)

    s, points = settings, settings.elastic_points
    allowed = torch.tensor([axis in flip_axes for axis in range(3)])
    where, tone, *rest = torch.rand(8, batch_size, generator=generator)
    angle, zoom = math.radians(s.rotation_deg), math.log1p(s.scale)
    return Parameters(
        flip=(torch.stack(rest[3:], 1) < s.flip_p) & allowed,
        affine=where < s.affine_p,
        rotation_rad=uniform(-angle, angle, 3),
        zoom=uniform(-zoom, zoom, 3).exp(),
        translation_vox=uniform(-s.translation_vox, s.translation_vox, 3),
        elastic=where < s.elastic_p,
        control_vox=uniform(-s.elastic_vox, s.elastic_vox, 3, points, points, points),
        gamma=tone < s.gamma_p,
        exponent=uniform(-s.gamma_log, s.gamma_log, channels).exp(),
        bias=tone < s.bias_p,
        log_gain=uniform(-s.bias_log, s.bias_log, channels, *[BIAS_POINTS] * 3),
        blur=rest[0] < s.blur_p,
        sigma_vox=uniform(0, s.blur_vox, channels, 3),
        lowres=rest[1] < s.lowres_p,
        factor=uniform(1, s.lowres_factor, channels, 3),
        noise=rest[2] < s.noise_p,
        noise_std=uniform(0, s.noise_std, channels),
        noise_seed=torch.randint(2**62, (batch_size,), generator=generator),
    )


def apply(
    image: Tensor,
    label: Tensor,
    parameters: Parameters,
    *,
    spacing: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Applies drawn parameters; the same parameters give the same result on a device.

    What comes from outside the volume is the nearest border voxel in the image and the
    background in the label. Computed in float32, whatever autocast says.

    Args:
        image: (B, C, X, Y, Z) floating point, z-normalised.
        label: (B, X, Y, Z) uint8 label rows, on the image's device.
        parameters: of B samples with C channels.
        spacing: (B, 3) voxel size along X, Y, Z on the CPU, so that anisotropic volumes
            rotate without shear; None is isotropic.

    Returns:
        New image and label of the same shapes and dtypes.
    """
    images, labels = [], []
    with torch.autocast(image.device.type, enabled=False):
        for i, (one, rows) in enumerate(zip(image.unbind(), label.unbind(), strict=True)):
            edges = torch.ones(3) if spacing is None else spacing[i]
            one, rows = spatial(one, rows, parameters, i, edges)
            images.append(intensity(one, parameters, i).to(image.dtype))
            labels.append(rows)
        return torch.stack(images), torch.stack(labels)


@dataclass(frozen=True)
class BatchAugmentation:
    """Draws and applies in one call.

    Args:
        settings: probabilities and magnitudes.
        flip_axes: axes (0, 1, 2) that may be reversed.
        partners: for each class, the one that it becomes in a flip along axis 0; None
            where flips change no class.
    """

    settings: AugmentationSettings
    flip_axes: tuple[int, ...] = ()
    partners: tuple[int, ...] | None = None

    def __call__(
        self,
        image: Tensor,
        label: Tensor,
        allowed: Tensor,
        generator: torch.Generator,
        spacing: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augments a batch; shapes as in `apply`, generator as in `draw`.

        Label rows keep their numbers in a flip: what changes is their sets of classes,
        `allowed` of shape (B, rows, classes), so that every protocol can be flipped.
        """
        parameters = draw(self.settings, image.shape[0], image.shape[1], self.flip_axes, generator)
        image, label = apply(image, label, parameters, spacing=spacing)
        if self.partners is not None:
            flipped = parameters.flip[:, 0].to(allowed.device)
            allowed = torch.where(
                flipped[:, None, None], exchanged(allowed, self.partners), allowed
            )
        return image, label, allowed


def exchanged(allowed: Tensor, partners: Sequence[int]) -> Tensor:
    """Sets of classes, (..., classes), with every class replaced by its partner."""
    return allowed[..., list(partners)]
