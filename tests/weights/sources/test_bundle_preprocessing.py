"""Bundles say how scans are prepared; MONAI's own transforms, in process, give the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

import hsf_finetune as hf
from hsf_finetune.config.settings.preprocessing_settings import (
    MinMaxIntensity,
    PercentileIntensity,
    Preprocessing,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.data.preprocessing.load_case import prepare_channels
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.sources.bundle import read_bundle
from hsf_finetune.weights.sources.bundle_preprocessing import (
    BundlePreprocessing,
    read_bundle_preprocessing,
)
from tests.weights.bundle_pipelines import (
    CROP,
    NORMAL,
    PERCENTILES,
    PIPELINES,
    SPACING,
    WINDOW,
    Pipeline,
    orientation,
    save_scans,
    sliding,
    step,
)
from tests.weights.bundles import CLASSES, NETWORKS, bundle, monai_network


def read(config: dict[str, Any], in_channels: int | None = 1) -> BundlePreprocessing:
    return read_bundle_preprocessing(config, Path("inference.json"), in_channels)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PIPELINES)
def test_a_scan_is_prepared_and_its_classes_return_as_by_monai(name: str, tmp_path: Path) -> None:
    pipeline = PIPELINES[name]
    found = read(pipeline.config())
    assert (found.unread, found.notes) == ((), ())
    how = found.value
    assert how is not None
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1)
    network.weight *= torch.tensor([1.0, 20.0, 20.0])[:, None, None, None, None]
    for scan in save_scans(tmp_path / "scans", pipeline.is_ct, ["PIR"]):
        data, expected = by_monai(pipeline, network, scan, tmp_path / "out")
        image, grid = prepare_channels([read_volume(VolumeRef(scan))], how)
        inside = data["image"].as_tensor()
        if not how.multiple_vox and not how.least_vox:
            # Their standard deviation divides by n, and not by n - 1.
            torch.testing.assert_close(image, inside, rtol=1e-3, atol=1e-4)
        logits = volume_logits(network, image[None], (1, 1, 1), how)[0]
        labels = grid.classes_to_file(logits.softmax(0))
        assert len(np.unique(expected)) == 3
        assert np.mean(labels == expected) >= 0.999


def by_monai(pipeline: Pipeline, network: nn.Module, scan: Path, out: Path) -> tuple[Any, Any]:
    """What MONAI prepares of a scan, and the segmentation that it writes."""
    parser = ConfigParser(pipeline.config() | {"output_dir": str(out)})
    data = parser.get_parsed_content("preprocessing")({"image": str(scan)})
    data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    parser.get_parsed_content("postprocessing")(dict(data))
    file = out / scan.name.replace(".nii.gz", "_trans.nii.gz")
    return data, np.asarray(nib.load(file).dataobj)


# ------------------------------------------------------------------ forms of configurations
def config(*steps: dict[str, Any], **further: Any) -> dict[str, Any]:
    return {"preprocessing": {"_target_": "Compose", "transforms": list(steps)}} | further


def value(*steps: dict[str, Any], **further: Any) -> Preprocessing:
    found = read(config(*steps, **further))
    assert found.unread == ()
    assert found.value is not None
    return found.value


FORMS: dict[str, dict[str, Any]] = {
    "references": config(
        step("LoadImaged", keys="@key"),
        step("Orientationd", keys=["@key"], axcodes=["L", "P", "S"]),
        step("Spacingd", keys=["@key"], pixdim="@sizes#fine", mode=["bilinear"]),
        WINDOW | {"keys": "@key"},
        key="$monai.utils.CommonKeys.IMAGE",
        sizes={"fine": "$[1.5, 1.2, 2.0] if @high else [3.0, 3.0, 3.0]"},
        high=True,
    ),
    "sums of lists": {
        "preprocessing": {"_target_": "Compose", "transforms": "$@load + @change"},
        "load": [step("LoadImaged"), orientation("LPS")],
        "change": [SPACING, WINDOW],
    },
    "through the dataset": {
        "transforms_here": [orientation("LPS"), SPACING, WINDOW],
        "dataset": {"_target_": "CacheDataset", "data": "$0", "transform": "@composed"},
        "composed": {"_target_": "monai.transforms.Compose", "transforms": "@transforms_here"},
    },
    "of arrays": config(
        {"_target_": "monai.transforms.Orientation", "axcodes": "LPS"},
        {"_target_": "Spacing", "pixdim": [1.5, 1.2, 2.0]},
        {key: item for key, item in WINDOW.items() if key != "keys"}
        | {"_target_": "monai.transforms.intensity.array.ScaleIntensityRange"},
    ),
    "of training": {
        "train": {"steps": [orientation("LPS"), SPACING, WINDOW]},
        "validate": {
            "preprocessing": {"_target_": "Compose", "transforms": "%train#steps"},
        },
    },
    "with labels, and switched off": config(
        step("LoadImaged", keys=["image", "label"]),
        step("ConvertToMultiChannelBasedOnBratsClassesd", keys="label"),
        step("Orientationd", keys=["image", "label"], axcodes="LPS"),
        SPACING | {"keys": ["image", "label"], "mode": ["bilinear", "nearest"]},
        step("CastToTyped", keys=["image", "label"], dtype=["$torch.float32", "$torch.uint8"]),
        step("RandGaussianNoised") | {"_disabled_": True},
        WINDOW,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_configurations_say_the_same(form: str) -> None:
    found = read(FORMS[form])
    assert found.unread == ()
    assert found.value is not None
    assert (found.value.orientation, found.value.spacing_mm) == ("LPS", (1.5, 1.2, 2.0))
    assert found.value.intensity == (WindowIntensity(low=-250, high=400),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NORMAL, ZScoreIntensity(mask="nonzero")),
        (
            step("NormalizeIntensityd", subtrahend=40, divisor=20),
            ZScoreIntensity(mean=40, std=20),
        ),
        (
            step("NormalizeIntensityd", subtrahend=[40], divisor=[20], channel_wise=True),
            ZScoreIntensity(mean=40, std=20),
        ),
        (step("ScaleIntensityd"), MinMaxIntensity()),
        (
            step("ScaleIntensityd", minv=None, maxv=None, factor=0.5),
            WindowIntensity(low=0, high=1, to=(0, 1.5), clip=False),
        ),
        (
            step("ScaleIntensityRanged", a_min=0, a_max=10),
            WindowIntensity(low=0, high=10, clip=False),
        ),
        (
            step("ScaleIntensityRangePercentilesd", lower=5, upper=95, b_min=-1, b_max=1),
            PercentileIntensity(low=5, high=95, to=(-1, 1), clip=False),
        ),
        (PERCENTILES, PercentileIntensity(low=1, high=99, to=(0.01, 0.99))),
    ],
)
def test_intensities(given: dict[str, Any], expected: Any) -> None:
    assert value(given).intensity == (expected,)


def test_channels_have_their_own_intensities() -> None:
    steps = [WINDOW | {"keys": "ct"}, step("NormalizeIntensityd", keys="pet")]
    joined = step("ConcatItemsd", keys=["ct", "pet"], name="image")
    found = read(config(*steps, orientation("RAS") | {"keys": ["ct", "pet"]}, joined), 2)
    assert found.unread == ()
    assert found.value is not None
    assert [one.kind for one in found.value.intensity] == ["window", "zscore"]
    apart = read(config(*steps), 2)
    assert "ct, pet, that are not joined" in apart.unread[0]


UNREAD: list[tuple[list[dict[str, Any]], str]] = [
    ([step("Resized", spatial_size=[96, 96, 96])], "Resized"),
    ([step("Lambdad", func="$lambda x: x - 1000")], "Lambdad ($lambda x: x - 1000)"),
    ([step("scripts.mine.Spacingd", pixdim=[1, 1, 1])], "scripts.mine.Spacingd"),
    ([orientation("SRA")], "Orientationd.axcodes: 'SRA'"),
    ([SPACING | {"mode": "nearest"}], "Spacingd.mode: 'nearest'"),
    ([SPACING | {"pixdim": [1, 1]}], "Spacingd.pixdim: [1, 1]"),
    ([SPACING | {"pixdim": "$f()"}], "Spacingd.pixdim: '$f()'"),
    ([CROP | {"k_divisible": 16}], "CropForegroundd.k_divisible: 16"),
    ([CROP | {"margin": 5}], "CropForegroundd.margin: 5"),
    ([CROP | {"select_fn": "$lambda x: x > 7"}], "CropForegroundd.select_fn"),
    ([WINDOW | {"a_min": 500}], "ScaleIntensityRanged: Value error, give a lower number"),
    ([WINDOW | {"colour": 1}], "ScaleIntensityRanged.colour: 1"),
    ([SPACING, orientation("RAS")], "Orientation comes before Spacing"),
    ([WINDOW, SPACING, NORMAL], "intensities are changed before Spacing"),
    ([step("DivisiblePadd", k=8), NORMAL], "padding comes last"),
    ([SPACING, SPACING], "come once"),
]


@pytest.mark.parametrize(("steps", "expected"), UNREAD)
def test_what_cannot_be_followed_is_named(steps: list[dict[str, Any]], expected: str) -> None:
    (line,) = read(config(*steps)).unread
    assert expected in line


@pytest.mark.parametrize(
    ("inferer", "expected"),
    [
        ({"_target_": "SliceInferer", "roi_size": [64, 64]}, "SliceInferer"),
        (sliding(96, 96), "SlidingWindowInferer.roi_size: [96, 96]"),
        (sliding(96, 96, 96, cval=-1), "SlidingWindowInferer.cval: -1"),
        (sliding(96, 96, 96, padding_mode="circular"), "padding_mode: 'circular'"),
        (sliding(96, 96, 96, overlap=1.5), "SlidingWindowInferer: overlap"),
    ],
)
def test_inferers_that_cannot_be_followed_are_named(inferer: Any, expected: str) -> None:
    (line,) = read(config(NORMAL, inferer=inferer)).unread
    assert expected in line


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([step("Activationsd", sigmoid=True)], "(sigmoid)"),
        ([step("Activationsd", sigmoid="@yes")], "(sigmoid)"),
        ([step("AsDiscreted", threshold=0.5)], "(sigmoid)"),
        ([step("KeepLargestConnectedComponentd")], "KeepLargestConnectedComponentd, which"),
        (
            [step("AsDiscreted", argmax=True), step("Invertd", nearest_interp=False)],
            "interpolates numbers of classes",
        ),
    ],
)
def test_what_follows_the_network_is_a_remark(after: Any, expected: str) -> None:
    found = read(config(orientation("RAS"), SPACING, postprocessing=after, yes=True))
    assert found.unread == ()
    assert expected in " ".join(found.notes)
    assert found.independent is ("sigmoid" in expected)


def test_a_configuration_without_transforms_says_nothing() -> None:
    assert read({"network_def": {"_target_": "UNet"}}) == BundlePreprocessing()


# --------------------------------------------------------------------------- of a run
def test_a_bundle_with_an_unknown_transform_is_refused(tmp_path: Path) -> None:
    network = NETWORKS["segresnet"]
    steps = config(orientation("RAS"), NORMAL, step("GaussianSmoothd", sigma=0.4))
    folder = bundle(tmp_path / "made", network, monai_network(network), further=steps)
    with pytest.raises(WeightsError, match=r"(?s)GaussianSmoothd.*preprocessing.missing=accept"):
        hf.load_model(folder, device="cpu")
    said: list[str] = []
    accepted = ["preprocessing.missing=accept"]
    model = Predictor.load(folder, device="cpu", settings=accepted, say=said.append)
    assert model.card.preprocessing.intensity == (ZScoreIntensity(mask="nonzero"),)
    assert any("left out of the preprocessing: GaussianSmoothd" in line for line in said)


@pytest.mark.parametrize("after", [{"sigmoid": True}, {"softmax": True}], ids=str)
def test_outputs_that_are_independent_predict_nothing_by_themselves(
    after: dict[str, bool], tmp_path: Path
) -> None:
    network = NETWORKS["segresnet"]
    steps = config(orientation("RAS"), NORMAL, postprocessing=[step("Activationsd", **after)])
    folder = bundle(tmp_path / "made", network, monai_network(network), further=steps)
    if "softmax" in after:
        assert hf.load_model(folder, device="cpu").card.classes == CLASSES
        return
    with pytest.raises(WeightsError, match=r"(?s)\(sigmoid\).*fine-tune from them"):
        hf.load_model(folder, device="cpu")


def test_images_that_are_not_turned_are_those_of_the_training_scans(tmp_path: Path) -> None:
    network = NETWORKS["segresnet"]
    folder = bundle(tmp_path / "made", network, monai_network(network), further=config(NORMAL))
    found = read_bundle(folder, orientation="LPS")
    assert found.preprocessing is not None
    assert found.preprocessing.orientation == "LPS"
    assert found.preprocessing.channel_names == ("T1", "T2")
    assert "stored as LPS" in " ".join(found.origin["notes"])
