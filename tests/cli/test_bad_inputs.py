"""Each bad input gives one clear message and exit code 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from hsf_finetune.cli.main import main
from tests.conftest import CONF, FAST, SHAPE, oblique_affine, save_nifti, tiny_case

Refused = Callable[..., str]


@pytest.fixture
def refused(
    own_data: Path, source_run: Path, outputs: Path, capfd: pytest.CaptureFixture[str]
) -> Refused:
    """Runs finetune.py on the (damaged) tiny cohort and gives back the one message."""

    def run(*overrides: str, dataset: str = "tiny") -> str:
        with pytest.raises(SystemExit) as caught:
            main(
                [
                    "finetune",
                    *("--config-dir", str(CONF), f"datasets={dataset}"),
                    f"datasets.main_path={own_data}",
                    f"datasets.output_path={outputs}",
                    f"finetuning.pretrained={source_run}",
                    "finetuning.derive_from={anterior: blob, posterior: blob}",
                    *FAST,
                    *overrides,
                ]
            )
        assert caught.value.code == 2
        text = capfd.readouterr().err
        assert text.count("error: ") == 1
        assert "Traceback" not in text
        assert not outputs.exists(), "no run folder is made before everything is known to fit"
        return text

    return run


def image(data: Path, number: int = 1) -> Path:
    return data / "tiny" / f"sub-{number:02d}" / f"sub-{number:02d}_T2w.nii.gz"


def label(data: Path, number: int = 1) -> Path:
    return image(data, number).with_name(f"sub-{number:02d}_dseg.nii.gz")


def said(text: str, *parts: object) -> None:
    for part in parts:
        assert str(part) in text


@pytest.mark.parametrize("which", [image, label])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_file(
    own_data: Path, refused: Refused, which: Callable[[Path], Path], keep: float
) -> None:
    path = which(own_data)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    said(refused(), "damaged or incomplete", path, "found:", "expected:", "exclude:")


def test_a_file_that_is_no_nifti(own_data: Path, refused: Refused) -> None:
    image(own_data).write_text("<html>not found</html>")
    said(refused(), "damaged or incomplete", image(own_data))


def test_every_damaged_file_is_named_at_once(own_data: Path, refused: Refused) -> None:
    for number in (1, 4):
        image(own_data, number).write_bytes(b"")
    said(refused(), image(own_data, 1), image(own_data, 4), "2 of 5 cases")


def test_shapes_that_differ(own_data: Path, refused: Refused) -> None:
    save_nifti(label(own_data), tiny_case(1)[1][:, 1:])
    said(refused(), "differ in shape", label(own_data), "(16, 23, 16)", "(16, 24, 16)")


def test_affines_that_differ(own_data: Path, refused: Refused) -> None:
    affine = oblique_affine()
    affine[1, 3] += 4
    save_nifti(label(own_data), tiny_case(1)[1], affine)
    said(refused(), "different grids", label(own_data), " 4 mm off", image(own_data))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_nan(own_data: Path, refused: Refused, value: float) -> None:
    array = tiny_case(1)[0]
    array[3, 4, 5:7] = value
    save_nifti(image(own_data), array)
    said(refused(), "NaN or infinite", image(own_data), "2 of 6144 voxels", "finite")


def test_a_constant_image(own_data: Path, refused: Refused) -> None:
    save_nifti(image(own_data), np.full(SHAPE, 3, np.int16))
    said(refused(), "constant", image(own_data), "value 3")


def test_a_label_value_that_is_not_in_the_map(own_data: Path, refused: Refused) -> None:
    array = tiny_case(1)[1]
    array[0, 0, :3] = 77
    save_nifti(label(own_data), array)
    said(refused(), label(own_data), "77 (3 voxels)", "0, 10, 20", "77: 0")


def test_labels_that_are_no_whole_numbers(own_data: Path, refused: Refused) -> None:
    save_nifti(label(own_data), tiny_case(1)[1].astype(np.float32) * 0.55)
    said(refused(), "not whole numbers", label(own_data), "5.5", "nearest")


def test_out_channels_that_contradict_the_labels(refused: Refused) -> None:
    text = refused("finetuning.out_channels=8")
    said(text, "contradicts the labels", "background, anterior, posterior", "out_channels=3")


def test_no_cases(own_data: Path, refused: Refused) -> None:
    text = refused("datasets.datasets.tiny.patterns.t2.mri='**/*_T1w.nii.gz'")
    said(text, "*_T1w.nii.gz", own_data / "tiny", "sub-01_T2w.nii.gz")
    said(refused("datasets.datasets.tiny.path=nowhere"), own_data / "nowhere", "main_path")
    (own_data / "tiny" / "empty").mkdir()
    said(refused("datasets.datasets.tiny.path=tiny/empty"), "no volume at all")


def test_a_missing_label(own_data: Path, refused: Refused) -> None:
    label(own_data, 3).unlink()
    said(refused(), "no label", image(own_data, 3), "sub-03_dseg.nii.gz", "exclude:")


def test_two_labels(own_data: Path, refused: Refused) -> None:
    save_nifti(image(own_data).with_name("sub-01_rater2_dseg.nii.gz"), tiny_case(1)[1])
    text = refused(
        "datasets.datasets.tiny.patterns.t2.mri='sub-*/*T2w.nii.gz'",
        "datasets.datasets.tiny.patterns.t2.label='*dseg.nii*'",
    )
    said(text, "more than one label", "sub-01_dseg.nii.gz", "sub-01_rater2_dseg.nii.gz")


def test_a_configuration_with_unknown_keys(refused: Refused) -> None:
    said(refused("datasets.batch_sise=2"), "did you mean 'datasets.batch_size'?")


def test_without_pretrained_weights(refused: Refused) -> None:
    text = refused("finetuning.pretrained=null")
    said(text, "no pretrained weights", "finetuning.pretrained=PATH", "train.py", "=demo", "=none")


def test_wrong_checkpoints(refused: Refused, tmp_path: Path, source_run: Path) -> None:
    garbage, empty, text = tmp_path / "a.ckpt", tmp_path / "b.ckpt", tmp_path / "c.yaml"
    garbage.write_bytes(bytes(range(256)))
    empty.touch()
    text.write_text("models: unet")
    for path, why in ((garbage, "256 bytes"), (empty, "empty file"), (text, "text file")):
        said(refused(f"finetuning.pretrained={path}"), "checkpoint", path, why)
    said(refused(f"finetuning.pretrained={tmp_path / 'no.ckpt'}"), tmp_path / "no.ckpt", "a.ckpt")
    said(refused("finetuning.pretrained=demo_"), "demo_")


def test_a_checkpoint_of_another_network(refused: Refused, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.save({"encoder.0.weight": torch.zeros(4, 1, 3, 3, 3)}, other)
    text = refused(f"finetuning.pretrained={other}", "finetuning.derive_from=null")
    said(text, "does not fit this network", other, "models=")
    said(refused("models.channels=[8,16]", "finetuning.derive_from=null"), "best.ckpt")


def test_derive_from_a_class_that_the_source_does_not_know(refused: Refused) -> None:
    said(refused("finetuning.derive_from={anterior: hippocampus}"), "hippocampus", "blob")


def test_hdf5_that_does_not_fit(own_data: Path, refused: Refused) -> None:
    path = own_data / "tiny_hdf5" / "vol_02.h5"
    with h5py.File(path, "a") as file:
        del file["image"].attrs["affine"]
    said(refused(dataset="tiny_hdf5"), path, "how large its voxels are", "spacing_mm:")
    with h5py.File(path, "a") as file:
        del file["image"]
    said(refused(dataset="tiny_hdf5"), path, "no dataset 'image'", "label")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    said(refused(dataset="tiny_hdf5"), path, "damaged or incomplete")


def test_predict_and_evaluate_refuse_too(
    own_data: Path, source_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    scan = image(own_data)
    flat = save_nifti(tmp_path / "flat.nii.gz", np.zeros(SHAPE, np.float32))
    for code, arguments in (
        (2, ["predict", tmp_path, scan, "-o", out]),
        (2, ["predict", source_run, tmp_path / "no.nii", "-o", out]),
        (2, ["predict", source_run, scan, "-o", scan.parent]),
        (2, ["predict", source_run, scan, "-o", scan]),
        (2, ["predict", source_run, scan, "-o", out, "--device", "gpu"]),
        (1, ["predict", source_run, flat, "-o", out]),
        (1, ["predict", source_run, f"{scan},{scan}", "-o", out]),
        (2, ["evaluate", tmp_path]),
        (2, ["evaluate", scan, label(own_data)]),
        (2, ["evaluate", label(own_data), label(own_data), "--labels", "DG"]),
    ):
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        assert caught.value.code == code, arguments
        printed = "".join(capfd.readouterr())
        assert "Traceback" not in printed
        assert "error: " in printed or "failed: " in printed
        assert not out.exists()
    assert nib.load(scan).shape == SHAPE
