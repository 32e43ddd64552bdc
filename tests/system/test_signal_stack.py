"""Signals reach a process whose libraries have had signal stacks of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hsf_finetune.inference.engines import is_installed, trace_onnx

SCRIPT = """
import gc, signal, sys
from pathlib import Path
from hsf_finetune.inference.engines import open_graph

signal.signal(signal.SIGUSR1, lambda *found: print("handled"))
engines = [open_graph("openvino", Path(sys.argv[1])) for _ in range(3)]
while engines:
    signal.raise_signal(signal.SIGUSR1)
    engines.pop(0)
    gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(not is_installed("openvino"), reason="openvino is not installed")
def test_models_that_end_in_the_order_of_their_making(tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    trace_onnx(nn.Conv3d(1, 2, 3, padding=1), graph, torch.zeros(1, 1, 8, 8, 8))
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, graph], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout.split()) == (0, ["handled"] * 4), ended.stderr
