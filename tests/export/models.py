"""Models to export, with random weights, and scans for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.config.settings import (
    NetworkSettings,
    NnUNetSettings,
    Preprocessing,
    UNetSettings,
)
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build
from tests.conftest import oblique_affine

SMALL = UNetSettings(channels=[4, 6, 8, 8], strides=[2, 2, 2], features=4, num_res_units=1)
OF_NNUNET = NnUNetSettings(features_per_stage=[4, 6, 8, 8], orientation="RSA")
VALUES = {"background": 0, "anterior": 20, "posterior": 10}
"""Not in ascending order: a channel is not a label value."""


def random_model(
    settings: NetworkSettings = SMALL, in_channels: int = 1, **preprocessing: Any
) -> Predictor:
    """A model that says something at every voxel."""
    torch.manual_seed(0)
    anatomy = build(settings, in_channels, len(VALUES))
    how = Preprocessing(**preprocessing)
    card = ModelCard(tuple(VALUES), VALUES, settings, in_channels, how)
    return Predictor(anatomy, card, torch.device("cpu"))


def save_scan(
    path: Path,
    shape: tuple[int, int, int] = (21, 27, 18),
    affine: npt.NDArray[np.float64] | None = None,
) -> Path:
    """Writes a smooth random scan."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=shape)
    image = np.fft.ifftn(np.fft.fftn(noise) * np.exp(-np.indices(shape).sum(0) / 4)).real
    scan = nib.Nifti1Image(
        (1000 * image + 300).astype(np.float32), oblique_affine() if affine is None else affine
    )
    nib.save(scan, path)
    return path


def save_tissues(path: Path, shape: tuple[int, int, int], affine: npt.NDArray[np.float64]) -> Path:
    """Writes a scan of three tissues with intensities of their own, and the same noise each time."""
    torch.manual_seed(0)
    image = nib.load(save_scan(path, shape, affine))
    smooth = torch.from_numpy(image.get_fdata())
    nib.save(nib.Nifti1Image(_tissues(smooth)[0].numpy(), image.affine), path)
    return path


def fitted_model(settings: NetworkSettings, steps: int = 40) -> Predictor:
    """A model that tells these tissues apart: hardly a voxel lies between two classes."""
    model = random_model(settings)
    network = model.anatomy.network.train()
    noise = torch.randn(2, 1, 8, 8, 8)
    smooth = torch.nn.functional.interpolate(noise, (32, 32, 32), mode="trilinear")
    image, tissue = _tissues(smooth)
    image = (image - image.mean()) / image.std()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), tissue[:, 0]).backward()
        optimizer.step()
    network.eval()
    return model


def _tissues(smooth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensities, and which of three tissues each voxel is."""
    tissue = torch.bucketize(
        smooth,
        torch.quantile(smooth.flatten()[:1_000_000], torch.tensor([0.3, 0.6], dtype=smooth.dtype)),
    )
    return (500.0 * tissue + 5 * torch.randn(smooth.shape)).float(), tissue
