"""The `augmentation` group: random changes of training images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hsf_finetune.config.settings.base_settings import Group, Positive, Probability, Text


class AugmentationSettings(Group):
    """Random changes of training images.

    Distances are in voxels, angles in degrees, intensities in standard
    deviations of the image. Each `*_p` is the probability per volume; what is applied is
    uniform between nothing and the given strength.
    """

    pipeline: Literal["none", "batched", "torchio_hsf"] = "batched"
    """Nothing, our batched pipeline on the training device, or HSF's TorchIO one."""
    flip: bool | Literal["auto"] = "auto"
    """Left-right flips; `auto` unless class names tell left from right."""
    lr_pairs: list[Annotated[list[Text], Field(min_length=2, max_length=2)]] | Literal["auto"] = (
        "auto"
    )
    """Classes that a left-right flip exchanges; `auto` finds them by their names."""
    flip_p: Probability = 0.5
    affine_p: Probability = 0.35
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest angle about each axis."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Largest magnification of each axis less 1; as likely shrunk by the same ratio."""
    translation_vox: Annotated[float, Field(ge=0)] = 3.0
    elastic_p: Probability = 0.2
    elastic_vox: Annotated[float, Field(ge=0)] = 5.0
    """Largest move of a B-spline control point; voxels move about a fifth of it."""
    elastic_points: Annotated[int, Field(ge=4, le=32)] = 6
    """Control points per axis; three of them lie outside the volume's cells."""
    gamma_p: Probability = 0.3
    gamma_log: Annotated[float, Field(ge=0)] = 0.4
    """Largest logarithm of the exponent."""
    bias_p: Probability = 0.2
    bias_log: Annotated[float, Field(ge=0)] = 1.0
    """Largest logarithm of the gain at a control point; voxels get about a fifth of it."""
    blur_p: Probability = 0.15
    blur_vox: Annotated[float, Field(ge=0)] = 1.0
    """Largest standard deviation of the Gaussian."""
    noise_p: Probability = 0.15
    noise_std: Annotated[float, Field(ge=0)] = 0.3
    lowres_p: Probability = 0.15
    lowres_factor: Annotated[float, Field(ge=1)] = 2.0
    """Most voxels along an axis that become one before they are interpolated back."""
    mixup_p: Probability = 0.0
    """Of a batch: each volume is mixed with another one."""
    mixup_alpha: Positive = 0.2
    """The share of the volume itself is of Beta(alpha, alpha)."""
    cutmix_p: Probability = 0.0
    """Of a batch: each volume has a box of another one, labels included."""
    cutmix_alpha: Positive = 1.0
    """The share of the volume that is kept is of Beta(alpha, alpha)."""

    @model_validator(mode="after")
    def _mixing_has_a_pipeline(self) -> AugmentationSettings:
        if (self.mixup_p or self.cutmix_p) and self.pipeline != "batched":
            raise ValueError(
                f"mixup_p and cutmix_p would be ignored: pipeline '{self.pipeline}' mixes no "
                "volumes; choose augmentation=mri or light, or leave them at 0"
            )
        return self

    def with_strength(self, strength: float) -> AugmentationSettings:
        """The same changes, each so many times as probable (1 is always, at the most)."""
        chances = {name: value for name, value in self if name.endswith("_p")}
        return self.model_copy(
            update={name: min(value * strength, 1.0) for name, value in chances.items()}
        )
