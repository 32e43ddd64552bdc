"""What a caller has set for the whole process is as it was after a call from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import CONF, FAST

PROGRAM = """
import random, sys
import numpy as np, torch
import hsf_finetune as hf

conf, data, run, output, *fast = sys.argv[1:]
scan = f"{data}/tiny/sub-01/sub-01_T2w.nii.gz"
torch.set_default_dtype(torch.float64)

def state():
    generators = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    return (*generators, torch.get_num_threads(), torch.get_default_dtype())

def kept(call):
    torch.seed(), np.random.rand(), random.random()
    before = state()
    result = call()
    assert state() == before
    return result

given = ["datasets=tiny", f"datasets.main_path={data}", f"datasets.output_path={output}", *fast]
config = hf.compose(*given, f"finetuning.pretrained={run}", "lightning.threads=2", config_dir=conf)
kept(lambda: hf.plan(config))
kept(lambda: hf.check(config, jobs=1))
trained = kept(lambda: hf.finetune(config))
kept(lambda: trained.model)
model = kept(lambda: hf.load_model(run))
segmentation = kept(lambda: model.predict(scan))
assert kept(lambda: segmentation.probabilities).dtype == np.float32
kept(lambda: hf.evaluate(run))
"""


def test_calls_leave_generators_threads_and_default_type_as_they_were(
    data: Path, source_run: Path, outputs: Path
) -> None:
    given = [*map(str, (CONF, data, source_run, outputs)), *FAST, "lightning.max_epochs=1"]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
