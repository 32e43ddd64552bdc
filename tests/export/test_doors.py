"""Each way to prepare scans, and each network, goes through a door unchanged or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hsf_finetune as hf
from hsf_finetune.config.settings import NetworkSettings, Preprocessing
from hsf_finetune.export.export_model import DOORS
from hsf_finetune.export.monai_networks import monai_definition
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.system.errors import ConfigError
from tests.export.models import OF_NNUNET, SMALL, random_model, save_scan
from tests.export.test_onnx_graph import DEPENDING_ON_SIZES
from tests.networks.small_settings import SETTINGS

ODD: dict[str, Any] = {
    "orientation": "LPS",
    "spacing_mm": (1.0, 1.0, 1.0),
    "intensity": ({"kind": "steps", "steps": [{"kind": "zscore"}, {"kind": "minmax"}]},),
    "intensity_first": True,
    "fill_values": "kept",
    "crop": "nonzero",
    "crop_margin_vox": 2,
    "crop_after": "intensity",
    "padding": "end",
    "padding_mode": "replicate",
    "padded_size": "window",
    "multiple_vox": (5, 5, 5),
    "least_vox": (40, 40, 40),
}
"""For each entry of a preprocessing that changes inputs, a value that is not the usual one."""
WITHOUT_EFFECT = {
    "resampling", "patch_vox", "window_vox", "overlap", "blending", "sigma_share", "channel_names",
    "sides",
}  # fmt: skip
"""On a scan that is not resampled, and taken in one piece."""
CARRIED = {
    "hsf": {"intensity_first", "fill_values"},
    "onnx": {*ODD},
    "bundle": {*ODD} - {"spacing_mm", "crop_margin_vox"},
    "nnunet": {"fill_values", "intensity_first", "crop", "padding", "padded_size"},
    "checkpoint": {*ODD},
}  # fmt: skip


def test_every_entry_of_a_preprocessing_is_tried() -> None:
    assert {*ODD} | WITHOUT_EFFECT == {*Preprocessing.model_fields}
    assert {*CARRIED} == {*DOORS}


@pytest.mark.parametrize("entry", ODD)
@pytest.mark.parametrize("door", CARRIED)
def test_what_differs_is_carried_or_refused(door: str, entry: str, tmp_path: Path) -> None:
    how = {entry: ODD[entry]} | ({"window_vox": (40, 40, 40)} if entry == "padded_size" else {})
    model = random_model(OF_NNUNET if door == "nnunet" else SMALL, **how)
    if entry not in CARRIED[door]:
        with pytest.raises(ConfigError, match=entry) as refusal:
            DOORS[door].check(TrainedModel(model, "made"))
        assert refusal.value.fix
        return
    # HSF and ONNX share one graph; what is done before it is part of the proof's own steps.
    graph = door == "onnx" and not entry.startswith(("padd", "multiple", "least"))
    if graph or DOORS[door].missing_packages():
        DOORS[door].check(TrainedModel(model, "made"))
        return
    scan = save_scan(tmp_path / "a.nii.gz", (19, 27, 18))
    exported = hf.export(model, door, tmp_path / "made", scan=scan)
    assert exported.proof is not None
    assert exported.proof.differing == 0


TRACED = {
    s.name: s for s in SETTINGS if monai_definition(s) is None and s not in DEPENDING_ON_SIZES
}
"""Networks that MONAI has not, or not with these settings; the others are in test_to_bundle.py."""


@pytest.mark.parametrize("settings", TRACED.values(), ids=lambda s: s.name)
def test_every_other_network_is_carried_by_a_bundle(
    settings: NetworkSettings, tmp_path: Path
) -> None:
    model, scan = random_model(settings), save_scan(tmp_path / "a.nii.gz", (19, 27, 18))
    exported = hf.export(model, "bundle", tmp_path / "made", scan=scan)
    assert exported.proof is not None
    assert exported.proof.share > 0.9999


@pytest.mark.parametrize("settings", DEPENDING_ON_SIZES, ids=lambda s: s.name)
def test_a_network_of_which_tracing_fixes_the_size_is_refused(
    settings: NetworkSettings, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"models={settings.name} cannot be written") as refusal:
        hf.export(random_model(settings), "bundle", tmp_path / "made", proof=False)
    assert refusal.value.fix
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("settings", [SMALL, OF_NNUNET], ids=lambda s: s.name)
@pytest.mark.parametrize("door", DOORS)
def test_an_export_predicts_as_its_model_label_values_included(
    door: str, settings: NetworkSettings, tmp_path: Path
) -> None:
    model, scan = random_model(settings), save_scan(tmp_path / "a.nii.gz", (24, 32, 24))
    if door == "nnunet":
        if settings is SMALL:
            return  # refused: nnU-Net has no such network
        how = {"intensity_first": True, "fill_values": "kept", "crop": "nonzero"}
        model = random_model(settings, **how, padding="symmetric", padded_size="window")
    folder = hf.export(model, door, tmp_path / "made", proof=False).folder
    again = hf.load_model(folder)
    assert again.card.label_values == model.card.label_values
    expected, found = model.predict(scan), again.predict(scan)
    assert (expected.labels == found.labels).all()
    assert found.volumes_mm3 == expected.volumes_mm3
