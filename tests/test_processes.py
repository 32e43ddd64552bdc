"""Several processes make one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.conftest import CONF, FAST

ROOT = CONF.parents[1]


def test_two_processes_share_a_folder_and_cross_a_thaw(data: Path, outputs: Path) -> None:
    command = [
        *(sys.executable, str(ROOT / "finetune.py"), "--config-dir", str(CONF)),
        *("datasets=tiny", f"datasets.main_path={data}", f"datasets.output_path={outputs}"),
        *("datasets.batch_size=1", "lightning=ddp", "lightning.devices=2"),
        *("finetuning.pretrained=none", "finetuning.depth=1", "finetuning.unfreeze_frequency=1"),
        *FAST,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ}, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("new run:") == 1, "only one process talks"
    (run,) = outputs.iterdir()
    assert (run / "result.json").exists()
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    # Three training cases on two processes are two steps an epoch.
    assert saved["global_step"] == 4
