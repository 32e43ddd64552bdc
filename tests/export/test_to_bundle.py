"""MONAI runs the bundle: the same segmentation, Dice, and fine-tuning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle.config_parser import ConfigParser
from monai.bundle.scripts import run
from monai.transforms.io.dictionary import SaveImaged
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

import hsf_finetune as hf
from hsf_finetune.config.settings import NetworkSettings, UNetSettings
from hsf_finetune.export.monai_networks import monai_definition
from hsf_finetune.export.to_bundle import SCHEMA_FILE
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.sources.bundle import read_bundle
from hsf_finetune.weights.sources.bundle_preprocessing import read_bundle_preprocessing
from tests.conftest import oblique_affine
from tests.export.models import SMALL, random_model, save_scan
from tests.networks.small_settings import SETTINGS
from tests.weights.bundle_pipelines import PIPELINES

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

FOUR_LEVELS = UNetSettings(channels=[4, 6, 8, 8, 8], strides=[2, 2, 2, 2], features=4)
OF_MONAI_BUNDLE: dict[str, Any] = {
    "spacing_mm": (0.9, 0.7, 1.0),
    "resampling": "monai",
    "intensity": ({"kind": "window", "low": 250, "high": 500},),
    "fill_values": "kept",
    "crop": "positive",
    "crop_after": "intensity",
    "padding": "symmetric",
    "padded_size": "window",
    "window_vox": (16, 16, 16),
    "blending": "constant",
}
"""Preprocessing as bundles of others have it."""
OF_MONAI = [settings for settings in SETTINGS if monai_definition(settings)]
OTHERS = [next(s for s in SETTINGS if s.name == name) for name in ("arunet", "nnunet")]


def run_bundle(folder: Path, *configs: str, **overrides: Any) -> None:
    files = [str(folder / "configs" / f"{name}.json") for name in configs]
    run(config_file=files, bundle_root=str(folder), device="cpu", **overrides)


@pytest.mark.parametrize("settings", OF_MONAI, ids=lambda s: s.name)
def test_the_class_of_monai_has_the_same_tensors(settings: NetworkSettings) -> None:
    anatomy = build(settings, 2, 3)
    config = {"imports": ["$import collections"], "in_channels": 2, "out_channels": 3}
    parser = ConfigParser(json.loads(json.dumps(config | (monai_definition(settings) or {}))))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(anatomy.network.state_dict())
    image = torch.randn(1, 2, *(2 * n for n in anatomy.divisor))
    with torch.inference_mode():
        expected = anatomy.network.eval()(image)
        torch.testing.assert_close(network(image), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "axes", "how"),
    [
        (SMALL, "RAS", {}),
        (SMALL, "PIR", {"crop": "none"}),
        (SMALL, "LPI", {"padding": "end", "orientation": "LPS"}),
        (FOUR_LEVELS, "RAS", {"intensity": ({"kind": "window", "low": 0, "high": 500},)}),
        (SMALL, "ASR", {"intensity": ({"kind": "minmax", "to": (-1, 1)},), "crop": "positive"}),
        (SMALL, "RAS", {"intensity": ({"kind": "percentile"},)}),
        (SMALL, "RAS", {"in_channels": 2}),
        (SMALL, "RAS", {"padding": "symmetric"}),
        (SMALL, "PIR", {"padded_size": "window", "window_vox": (40, 44, 36)}),
        (SMALL, "PIR", OF_MONAI_BUNDLE),
        (SMALL, "LAS", OF_MONAI_BUNDLE | {"resampling": "monai_nearest", "crop_after": "reading"}),
        (SMALL, "RAS", {"padding_mode": "reflect", "multiple_vox": (16, 8, 24)}),
        *((settings, "RAS", {}) for settings in OTHERS),
    ],
)
def test_monai_gives_the_same_segmentation(
    settings: NetworkSettings, axes: str, how: dict[str, Any], tmp_path: Path
) -> None:
    model = random_model(settings, **how)
    shape, affine = (33, 18, 25), oblique_affine()
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    folder = tmp_path / "scans" / "case" if "in_channels" in how else tmp_path / "scans"
    folder.mkdir(parents=True)
    scan = [save_scan(folder / "a.nii.gz", shape, affine @ inv_ornt_aff(turn, shape))]
    if "in_channels" in how:
        scan.append(save_scan(folder / "b.nii.gz", shape, affine @ inv_ornt_aff(turn, shape)))
    hf.export(model, "bundle", tmp_path / "made", proof=False)
    run_bundle(
        tmp_path / "made",
        "inference",
        dataset_dir=str(tmp_path / "scans"),
        output_dir=str(tmp_path / "out"),
    )
    found = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    expected = model.predict(scan)
    assert len(np.unique(expected.labels)) == 3
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected.labels)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_bundle_of_others_keeps_its_transforms(name: str, tmp_path: Path) -> None:
    """HSF cannot do what they do, and says what it is."""
    first = read_bundle_preprocessing(PIPELINES[name].config(), Path("first.json"), 1).value
    assert first is not None
    model = random_model(**{**first.to_dict(), "channel_names": None})
    hf.export(model, "bundle", tmp_path / "made", proof=False)
    written = json.loads((tmp_path / "made" / "configs" / "inference.json").read_text())
    again = read_bundle_preprocessing(written, Path("again.json"), 1)
    assert again.unread == ()
    assert again.value is not None
    # A scan in one piece is padded to what this network halves.
    sizes = {"least_vox", "multiple_vox"} if first.padded_size == "multiple" else set()
    assert again.value.model_dump(exclude=sizes) == first.model_dump(exclude=sizes)
    odd = "spacing_mm" if first.spacing_mm else "orientation: LAS"
    with pytest.raises(ConfigError, match=rf"(?s)HSF cannot prepare scans.*{odd}"):
        hf.export(model, "hsf", tmp_path / "other", proof=False)


def test_label_values_of_any_size_are_written(tmp_path: Path) -> None:
    model = random_model()
    values = {"background": 0, "anterior": 300, "posterior": -2}
    model = Predictor(model.anatomy, replace(model.card, label_values=values), torch.device("cpu"))
    scan = save_scan(tmp_path / "a.nii.gz")
    exported = hf.export(model, "bundle", tmp_path / "made", scan=scan)
    assert exported.proof is not None
    assert exported.proof.differing == 0
    assert set(np.unique(model.predict(scan).labels)) == set(values.values())


@pytest.mark.parametrize("crop", ["margins", "positive"])
def test_a_bundle_is_evaluated_and_fine_tuned(
    crop: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dice with the model's own segmentation as label is 1; training leaves other weights."""
    model, folder = random_model(crop=crop), tmp_path / "made"
    for name in ("scans", "labels"):
        (tmp_path / name).mkdir()
    scan = save_scan(tmp_path / "scans" / "a.nii.gz")
    model.predict(scan).save(tmp_path / "labels" / "a.nii.gz")
    hf.export(model, "bundle", folder, scan=scan)
    where = {"dataset_dir": str(tmp_path / "scans"), "label_dir": str(tmp_path / "labels")}
    run_bundle(folder, "inference", "evaluate", **where)
    assert "'val_mean_dice': 1.0" in capsys.readouterr().out
    run_bundle(folder, "inference", "train", epochs=1, patch_vox=[16, 16, 16], **where)
    before = torch.load(folder / "models" / "model.pt", weights_only=True)
    after = torch.load(folder / "models" / "fine_tuned.pt", weights_only=True)
    assert before.keys() == after.keys()
    assert not torch.equal(before["head.weight"], after["head.weight"])
    run_bundle(
        folder,
        "inference",
        ckpt_path=str(folder / "models" / "fine_tuned.pt"),
        output_dir=str(tmp_path / "out"),
        dataset_dir=str(tmp_path / "scans"),
    )
    assert (tmp_path / "out" / "a_seg.nii.gz").exists()


@pytest.mark.parametrize("settings", [SMALL, OTHERS[0]], ids=lambda s: s.name)
def test_the_entries_that_monai_label_asks_for(settings: NetworkSettings, tmp_path: Path) -> None:
    """Its BundleInferTask takes single entries: its package pulls 8 GB, so its steps are repeated."""
    model, folder = random_model(settings), tmp_path / "made"
    hf.export(model, "bundle", folder, proof=False)
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.config.update({"bundle_root": str(folder), "device": "cpu"})
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    data = {"image": str(save_scan(tmp_path / "scan.nii.gz"))}
    steps = {
        n: parser.get_parsed_content(n).transforms for n in ("preprocessing", "postprocessing")
    }
    for step in steps["preprocessing"]:
        data = step(data)
    with torch.inference_mode():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network.eval())[0]
    saved = [step for step in steps["postprocessing"] if isinstance(step, SaveImaged)]
    assert len(saved) == 1
    for step in steps["postprocessing"]:
        data = data if step in saved else step(data)
    assert np.array_equal(data["pred"][0], model.predict(tmp_path / "scan.nii.gz").labels)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    assert [*formats["inputs"]] == ["image"]
    assert [*formats["outputs"]["pred"]["channel_def"].values()] == [*model.card.classes]


def test_what_is_known_of_the_licence_reads_as_a_sentence(tmp_path: Path) -> None:
    hf.export(random_model(SMALL), "bundle", tmp_path / "made", proof=False)
    licence = read_bundle(tmp_path / "made").origin["licence"]
    assert licence.startswith("Fine-tuned weights")
    assert licence.endswith("right to share both.")
    assert ":" not in licence


def test_metadata_follow_monais_schema(tmp_path: Path) -> None:
    hf.export(random_model(), "bundle", tmp_path / "made", proof=False)
    metadata = json.loads((tmp_path / "made" / "configs" / "metadata.json").read_text())
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.validate(metadata, schema)
    assert metadata["schema"].endswith(SCHEMA_FILE.name)
    del metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, schema)


@pytest.mark.parametrize(
    "how",
    [
        {"spacing_mm": (1.0, 1.0, 1.0)},
        {"intensity": ({"kind": "zscore", "mask": "nonzero_filled"},)},
        {"intensity": ({"kind": "zscore", "clip": (0, 5)},)},
        {"crop_margin_vox": 3},
    ],
    ids=["spacing", "filled", "clip", "margin"],
)
def test_what_monais_transforms_cannot_do_is_refused(how: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(how))):
        hf.export(random_model(**how), "bundle", tmp_path / "made", proof=False)
    assert not (tmp_path / "made").exists()
