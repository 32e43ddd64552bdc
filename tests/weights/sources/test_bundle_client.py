"""A bundle segments raw scans as `monai.bundle run` does, by what its configuration says alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from torch import Tensor, nn

import hsf_finetune as hf
from tests.export.test_clients import run
from tests.weights.bundle_pipelines import PIPELINES, Pipeline, phantom, save_scans
from tests.weights.bundles import METADATA, bundle

pytestmark = pytest.mark.clients

NETWORK: dict[str, Any] = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [8, 16, 24],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}
IMAGE = {"num_channels": 1, "channel_def": {"0": "image"}}
FORMAT = METADATA["network_data_format"] | {"inputs": {"image": IMAGE}}
SPATIAL = ("Orientationd", "Spacingd", "CropForegroundd", "SpatialPadd", "DivisiblePadd")


@pytest.mark.parametrize("name", PIPELINES)
def test_predictions_are_those_of_monai(name: str, tmp_path: Path) -> None:
    """In six storage orders and two voxel sizes; with -s it prints a row of docs/weights.md."""
    pipeline = PIPELINES[name]
    folder = bundle(
        tmp_path / "bundle",
        NETWORK,
        trained(pipeline, tmp_path),
        METADATA | {"network_data_format": FORMAT},
        pipeline.config(),
    )
    scans = save_scans(tmp_path / "scans", pipeline.is_ct)
    command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", folder]
    where = ["--dataset_dir", tmp_path / "scans", "--output_dir", tmp_path / "theirs"]
    run(*command, "--config_file", folder / "configs" / "inference.json", *where)

    model = hf.load_model(folder, device="cpu")
    differing, voxels, worst = 0, 0, 0.0
    for scan in scans:
        theirs = tmp_path / "theirs" / scan.name.replace(".nii.gz", "_trans.nii.gz")
        expected = np.asarray(nib.load(theirs).dataobj)
        found = int(np.sum(model.predict(scan).labels != expected))
        assert len(np.unique(expected)) == 3
        assert found < 0.001 * expected.size
        assert found < 0.05 * np.count_nonzero(expected)
        differing, voxels = differing + found, voxels + expected.size
        worst = max(worst, found / expected.size)
    print("", name, f"{differing} of {voxels}", f"{1 - worst:.3%}", "", sep=" | ")


def trained(pipeline: Pipeline, folder: Path) -> nn.Module:
    """A network that has learned to find the two structures in scans as the bundle prepares them."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = UNet(**{key: value for key, value in NETWORK.items() if key != "_target_"})
    samples = [
        prepared(pipeline, phantom(rng, spacing, pipeline.is_ct, size), folder / f"{size}")
        for size, spacing in (
            (1.0, (1.0, 1.1, 1.3)),
            (0.7, (1.7, 1.2, 2.4)),
            (0.8, (1.3, 1.2, 1.8)),
        )
    ]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(90):
        image, label = samples[step % len(samples)]
        loss = nn.functional.cross_entropy(network(image[None]), label[None])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def prepared(
    pipeline: Pipeline, made: tuple[nib.Nifti1Image, nib.Nifti1Image], folder: Path
) -> tuple[Tensor, Tensor]:
    """A phantom and its label as the bundle's transforms make them, in multiples of 4 voxels."""
    folder.mkdir()
    both = ["image", "label"]
    files = {key: str(folder / f"{key}.nii.gz") for key in both}
    for image, file in zip(made, files.values(), strict=True):
        nib.save(image, file)
    steps = [{"_target_": name, "keys": both} for name in ("LoadImaged", "EnsureChannelFirstd")]
    for one in pipeline.before:
        keys = both if one["_target_"] in SPATIAL else "image"
        modes = {"mode": ["bilinear", "nearest"]} if one["_target_"] == "Spacingd" else {}
        steps.append({**one, "keys": keys, **modes})
    parser = ConfigParser({"steps": {"_target_": "Compose", "transforms": steps}})
    found = parser.get_parsed_content("steps")(files)
    x, y, z = (slice(n // 4 * 4) for n in found["label"].shape[1:])
    image, label = found["image"].as_tensor().float(), found["label"].as_tensor()[0].long()
    return image[:, x, y, z], label[x, y, z]
