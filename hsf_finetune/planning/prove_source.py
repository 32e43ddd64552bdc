"""Whether weights predict in this package as their own program does, on one scan."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.preprocessing.orientation import stored_along
from hsf_finetune.data.volumes.nibabel_formats import save_image
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume
from hsf_finetune.inference.predictor import Predictor, pick_device
from hsf_finetune.inference.weights_model import build_untouched
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.errors import UserError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.sources.given_weights import PretrainedWeights
from hsf_finetune.weights.sources.kept_proof import NNUNET, is_compared, keep_proof, proof_text
from hsf_finetune.weights.sources.nnunet_plans import json_object

if TYPE_CHECKING:
    from hsf_finetune.planning.setup import Setup

_PROGRAM = "nnUNetv2_predict_from_modelfolder"
_ENVIRONMENT = "HSF_FINETUNE_ENV_NNUNET"
"""Environment variable that names an environment in which nnunetv2 is installed."""
_HARMLESS = ("numpy.", "_codecs.encode", "collections.")
"""What nnU-Net's checkpoints name beside tensors; any other name would be run by nnU-Net."""


def prove_source(setup: Setup) -> str:
    """Compares the untouched prediction with that of the weights' own program, once.

    That is nnU-Net v2, where it is installed in this environment or in the one that
    HSF_FINETUNE_ENV_NNUNET names. It is not started for a checkpoint whose pickle names what
    it would run.

    Args:
        setup: of a run with pretrained weights.

    Returns:
        What was found, or why nothing was compared; empty for weights without a program of
        their own.
    """
    assert setup.transfer is not None
    source = setup.transfer.source
    checkpoint, program = source.checkpoint, _find_program()
    known = proof_text(checkpoint)
    if checkpoint.origin.get("format") != NNUNET or program is None or is_compared(checkpoint):
        return known
    cases = setup.split.validation or setup.split.train
    fitting = [case for case in cases if len(case.images) == checkpoint.in_channels]
    if not fitting:
        return f"{known}; no scan has {checkpoint.in_channels} channels"
    if named := _unknown_names(checkpoint.path):
        return f"nnU-Net was not started, since its checkpoint would run {', '.join(named)}"
    console.say(f"comparing with nnU-Net's own prediction of {fitting[0].name} ...")
    try:
        with tempfile.TemporaryDirectory(prefix="nnunet-") as folder:
            text = _compare(setup.settings, source, fitting[0], Path(folder), program)
    except (UserError, OSError, subprocess.SubprocessError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines() or [repr(error)]
        return f"predictions could not be compared with nnU-Net's own: {lines[-1][:200]}"
    keep_proof(checkpoint, text)
    return text


# -------------------------------------------------------------------- internals
def _find_program() -> str | None:
    named = os.environ.get(_ENVIRONMENT)
    folder = Path(named) / "bin" if named else Path(sys.executable).parent
    return shutil.which(_PROGRAM, path=str(folder))


def _unknown_names(path: Path) -> list[str]:
    """Functions and classes in a checkpoint's pickle that nnU-Net's own do not name."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, OSError):  # of torch before version 1.6
        return ["what cannot be listed"]
    return [name for name in names if not name.startswith(_HARMLESS)]


def _compare(
    settings: Settings, source: PretrainedWeights, case: Case, folder: Path, program: str
) -> str:
    checkpoint = source.checkpoint
    stored = str(checkpoint.origin["stored"])
    scans = folder / "scans"
    scans.mkdir()
    files = [scans / f"case_{number:04d}.nii.gz" for number in range(len(case.images))]
    for ref, file in zip(case.images, files, strict=True):
        volume = read_volume(ref)
        _save_stored_so(np.asarray(volume.array, np.float32), volume.affine, stored, file)
    _write_model(checkpoint, folder / "model")
    device = pick_device("auto")
    options = ["-i", scans, "-o", folder / "theirs", "-m", folder / "model", "-f", "0"]
    options += ["--disable_tta", "-device", device.type, "-npp", "1", "-nps", "1"]
    subprocess.run([program, *map(str, options)], check=True, capture_output=True, text=True)
    theirs = read_volume(VolumeRef(folder / "theirs" / "case.nii.gz")).array
    plain = compose("finetune", ["models=pretrained"])
    plain = plain.model_copy(update={"weights": settings.weights, "models": settings.models})
    anatomy, card = build_untouched(plain, source)
    ours = Predictor(anatomy, card, device).predict(files).labels
    return _text(ours, theirs, case.name)


def _text(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], case: str) -> str:
    equal = float(np.mean(ours == theirs))
    found = int(np.count_nonzero(theirs))
    size = " x ".join(map(str, theirs.shape))
    return (
        f"{equal:.3%} of the voxels of {case} ({size}, {found:,} of them not background) are "
        "segmented as nnU-Net itself does, without mirroring"
    )


def _save_stored_so(
    array: npt.NDArray[Any], affine: npt.NDArray[Any], stored: str, file: Path
) -> None:
    """Saves a scan with axes as nnU-Net's training images had them."""
    save_image(stored_along(nib.Nifti1Image(array, affine), stored), file)


def _write_model(checkpoint: Checkpoint, folder: Path) -> None:
    """A model's folder with one fold, from a results folder or from a checkpoint alone."""
    (folder / "fold_0").mkdir(parents=True)
    os.symlink(checkpoint.path.resolve(), folder / "fold_0" / "checkpoint_final.pth")
    results = checkpoint.path.parent.parent
    described = checkpoint.described.get("init_args")
    if (results / "plans.json").is_file():
        plans, dataset = json_object(results / "plans.json"), json_object(results / "dataset.json")
    else:
        assert described is not None
        plans, dataset = described["plans"], described["dataset_json"]
    write_json(folder / "plans.json", plans)
    write_json(folder / "dataset.json", {**dataset, "file_ending": ".nii.gz"})
