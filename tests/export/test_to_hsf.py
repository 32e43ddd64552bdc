"""What HSF needs beside the model, and which models it cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nibabel.orientations import inv_ornt_aff, io_orientation

import hsf_finetune as hf
from hsf_finetune.config.settings import NetworkSettings, SwinUNETRSettings, UNetSettings
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError
from tests.conftest import oblique_affine
from tests.export.models import SMALL, random_model, save_scan

TWO_LEVELS = UNetSettings(channels=[4, 6, 8], strides=[2, 2], features=4)
FOUR_LEVELS = UNetSettings(channels=[4, 6, 8, 8, 8], strides=[2, 2, 2, 2], features=4)


def test_the_yaml_names_the_one_model_and_its_hash(tmp_path: Path) -> None:
    hf.export(random_model(), "hsf", tmp_path / "my-model", proof=False)
    config = yaml.safe_load((tmp_path / "my-model/config/segmentation/my_model.yaml").read_text())
    (file,) = (tmp_path / "my-model" / "models").iterdir()
    assert config["ca_mode"] == "1/2/3"
    assert list(config["models"]) == [file.name]
    found = config["models"][file.name]["xxh3_64"]
    assert found == Checksum.of_file(file, "xxh3_64").digits
    rows = (tmp_path / "my-model" / "labels.tsv").read_text().splitlines()
    assert rows == [
        "channel\tclass\tlabel_value",
        "0\tbackground\t0",
        "1\tanterior\t20",
        "2\tposterior\t10",
    ]


@pytest.mark.parametrize("settings", [SMALL, FOUR_LEVELS], ids=["8", "16"])
@pytest.mark.parametrize("axes", ["RAS", "PIR"])
def test_a_scan_of_any_size_and_axes_is_segmented_alike(
    settings: NetworkSettings, axes: str, tmp_path: Path
) -> None:
    from nibabel.orientations import axcodes2ornt, ornt_transform

    shape, affine = (33, 18, 25), oblique_affine()
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    scan = save_scan(tmp_path / "scan.nii.gz", shape, affine @ inv_ornt_aff(turn, shape))
    exported = hf.export(random_model(settings), "hsf", tmp_path / "made", scan=scan)
    assert exported.proof is not None
    assert exported.proof.differing == 0


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"in_channels": 2}, "2 input channels"),
        ({"spacing_mm": (1.0, 1.0, 1.0)}, "spacing_mm: 1.0, 1.0, 1.0"),
        ({"padding": "end"}, "padding: end"),
        ({"orientation": "LPS"}, "orientation: LPS"),
        ({"intensity": ({"kind": "minmax"},)}, "intensity: .*minmax"),
        ({"crop": "nonzero"}, "crop: nonzero"),
        ({"settings": TWO_LEVELS}, "multiples of 4 x 4 x 4"),
        ({"settings": SwinUNETRSettings()}, "swinunetr"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_model_that_hsf_cannot_follow_is_refused_by_name(
    model: dict[str, Any], found: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=found) as refusal:
        hf.export(random_model(**model), "hsf", tmp_path / "made", proof=False)
    assert refusal.value.fix
    assert not np.any([p.name == "made" for p in tmp_path.iterdir()])
