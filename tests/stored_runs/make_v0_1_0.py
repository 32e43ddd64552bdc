"""Makes tests/stored_runs/v0_1_0 with version 0.1.0: run it in a checkout of that version.

python make_v0_1_0.py FOLDER

It trains a source model, fine-tunes it, kills a second fine-tuning in its last epoch, and writes
down what version 0.1.0 then makes of them. Only `test_old_runs.py` reads the result; the version
at hand cannot make it again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from hsf_finetune.configuration import compose
from hsf_finetune.run import execute
from hsf_finetune.settings import Settings

from hsf_finetune.data.volumes import VolumeRef
from hsf_finetune.inference.predictor import Predictor
from tests.conftest import CONF, FAST, SUBJECTS, save_nifti, tiny_case
from tests.training.killing import run_until_killed

KEPT = {".yaml", ".json", ".csv", ".ckpt"}


def main(target: Path) -> None:
    """Makes the three runs in a temporary folder and stores what is needed of them."""
    torch.set_num_threads(1)
    sys.argv = ["finetune.py"]
    root = Path(tempfile.mkdtemp())
    data, outputs = root / "data", root / "outputs"
    for number in range(1, SUBJECTS + 1):
        folder = data / "tiny" / f"sub-{number:02d}"
        image, label = tiny_case(number)
        save_nifti(folder / f"sub-{number:02d}_T2w.nii.gz", image)
        save_nifti(folder / f"sub-{number:02d}_dseg.nii.gz", label)

    def settings(config: str, name: str, *more: str) -> Settings:
        where = [f"datasets.main_path={data}", f"datasets.output_path={outputs}"]
        where += [f"run_dir={outputs / name}", "lightning.max_epochs=3", "models.lr=1e-2"]
        return compose(config, [*where, *FAST, *more], CONF)

    source = outputs / "source"
    execute(settings("train", "source", "datasets=tiny_source"))
    tuning = [
        *("datasets=tiny", "datasets.k_sample=30", f"finetuning.pretrained={source}"),
        "finetuning.derive_from={anterior: blob}",
        *("finetuning.mode=both", "finetuning.depth=2", "finetuning.unfreeze_frequency=1"),
    ]
    execute(settings("finetune", "finetuned", *tuning))
    random = ["augmentation=mri", "models.dropout=0.2"]
    run_until_killed(settings("finetune", "interrupted", *tuning, *random), epoch=2)
    shutil.rmtree(target, ignore_errors=True)
    for path in outputs.rglob("*"):
        if path.suffix in KEPT:
            copy = target / path.relative_to(outputs)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            if path.suffix != ".ckpt":
                text = path.read_text().replace(str(data), "DATA_FOLDER")
                copy.write_text(text.replace(str(outputs), "OUTPUT_FOLDER"))

    scan = VolumeRef(data / "tiny" / "sub-01" / "sub-01_T2w.nii.gz")
    expected = {"labels": Predictor.load(outputs / "finetuned", device="cpu").predict([scan])[0]}
    again = f"resume={outputs / 'interrupted'}"
    execute(settings("finetune", "interrupted", *tuning, *random, again))
    shutil.copyfile(outputs / "interrupted" / "metrics.csv", target / "resumed_metrics.csv")
    last = torch.load(outputs / "interrupted" / "checkpoints" / "last.ckpt", weights_only=True)
    weights = {name: tensor.numpy() for name, tensor in last["state_dict"].items()}
    np.savez_compressed(target / "expected.npz", **expected)
    np.savez_compressed(target / "resumed_weights.npz", **weights)
    result = json.loads((outputs / "finetuned" / "result.json").read_text())
    print(json.dumps(result["best_epoch"][-1], indent=1), *sorted(target.rglob("*")), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
