"""HSF's augmentation preset, run by TorchIO on one volume at a time.

The preset is that of HSF's own training code: a left-right flip, motion artefacts,
blur, noise, gamma, an affine and an elastic deformation. The flip is computed here, not
by TorchIO, since it has to exchange classes. Canonical orientation and z-normalisation,
which HSF lists in the same preset, belong to preprocessing.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hsf_finetune.data.augment.flips import exchange_classes

FLIP_P = 0.5


@dataclass(frozen=True)
class HsfPipeline:
    """HSF's preset as a function of one volume and a seed.

    Flip p 0.5; motion of up to 5 degrees and 5 mm in 3 movements, p 0.1; blur of up
    to 0.5 mm, p 0.1; noise of up to 0.5 standard deviations, p 0.1; gamma exp(+-0.4),
    p 0.1; affine of up to 30 degrees, 5 mm and a scale of 0.7 to 1.3 per axis, p 0.2;
    elastic deformation of up to 4 mm at 4 control points per axis, p 0.1.

    Args:
        flip: whether left-right flips are allowed.
        partners: for each class, the one that it becomes in a flip; None where flips
            change no class.
    """

    flip: bool = True
    partners: tuple[int, ...] | None = None

    def __call__(
        self, image: Tensor, label: Tensor, allowed: Tensor, spacing: Sequence[float], seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augments one volume; the same seed gives the same result.

        Voxels from outside the volume get the image's minimum and the background
        row; TorchIO's elastic deformation gives them the smallest label instead, which
        differs only in a volume without a background voxel.

        Args:
            image: (C, X, Y, Z) floating point, z-normalised, axes in RAS+ order.
            label: (X, Y, Z) uint8 label rows.
            allowed: the label rows' sets of classes, (rows, classes) bool.
            spacing: voxel size in mm along X, Y, Z.
            seed: of everything that is drawn; the global random state does not change.

        Returns:
            Image, label and sets of the same shapes and dtypes, on the CPU.
        """
        tio = importlib.import_module("torchio")  # only now, since it takes a second or more
        dtype = image.dtype
        generator = torch.Generator().manual_seed(seed)
        if self.flip and torch.rand(1, generator=generator) < FLIP_P:
            image, label = image.flip(1), label.flip(0)
            if self.partners is not None:
                allowed = exchange_classes(allowed, self.partners)
        affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)).numpy()
        subject = tio.Subject(
            image=tio.ScalarImage(tensor=image.float(), affine=affine),
            label=tio.LabelMap(tensor=label[None], affine=affine),
        )
        # TorchIO's noise seeds every device, so every device in use is restored.
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            # HSF's displacement of 4 mm may exceed half a control cell on thin crops.
            warnings.filterwarnings("ignore", message="The maximum displacement")
            torch.default_generator.manual_seed(seed)
            changed = self._transform(subject)
        rows = changed["label"].data[0].to(torch.uint8)
        return changed["image"].data.to(dtype), rows, allowed

    @cached_property
    def _transform(self) -> Any:
        tio = importlib.import_module("torchio")
        changes = [
            tio.RandomMotion(degrees=5, translation=5, num_transforms=3, p=0.1),
            tio.RandomBlur(std=(0, 0.5), p=0.1),
            tio.RandomNoise(mean=0, std=(0, 0.5), p=0.1),
            tio.RandomGamma(log_gamma=0.4, p=0.1),
            tio.RandomAffine(scales=0.3, degrees=30, translation=5, isotropic=False, p=0.2),
            tio.RandomElasticDeformation(
                num_control_points=4, max_displacement=4, locked_borders=0, p=0.1
            ),
        ]
        return tio.Compose(changes)
