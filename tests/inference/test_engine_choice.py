"""What runs a network changes nothing of what is found, beyond a bound, and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hsf_finetune.config.settings import NetworkSettings, SwinUNETRSettings
from hsf_finetune.inference import engine_choice, engines
from hsf_finetune.inference.engines import Engine, EngineName
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.build import build
from hsf_finetune.system.errors import ConfigError
from tests.inference.test_predictor import CPU, TINY, card, scan

__all__ = ["scan"]  # a fixture

INSTALLED = [name for name in ("openvino", "onnxruntime") if engines.is_installed(name)]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))


def model(engine: EngineName, seed: int = 0, network: NetworkSettings = TINY) -> Predictor:
    torch.manual_seed(seed)
    made = replace(card(), models=network)
    return Predictor(build(TINY, 1, 3), made, CPU, engine)


def patch_graph(monkeypatch: pytest.MonkeyPatch, logits: Callable[[Tensor], Tensor]) -> None:
    """An engine that gives these logits in no time."""
    monkeypatch.setattr(engine_choice, "is_installed", lambda name: True)
    made = Engine("openvino", "openvino 1, float32", logits)
    monkeypatch.setattr(engine_choice, "open_graph", lambda name, graph: made)
    monkeypatch.setattr(engines.metadata, "version", lambda name: "1")


@pytest.mark.parametrize("engine", INSTALLED)
def test_an_engine_finds_what_torch_finds(
    engine: EngineName, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = model("torch").predict(scan)
    assert capsys.readouterr().out == ""
    found = model(engine).predict(scan)
    assert np.mean(found.labels != expected.labels) < 1e-3
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    printed = capsys.readouterr().out
    assert printed.startswith(f"engine: {engine} ")
    assert "% of the segmented voxels differ from torch's" in printed


@pytest.mark.parametrize("engine", INSTALLED)
def test_a_known_engine_starts_without_the_network(engine: EngineName, scan: Path) -> None:
    first = model(engine)
    found = first.predict(scan)

    def refuse() -> Anatomy:
        raise AssertionError("the network was built")

    weights = first.anatomy.network.state_dict()
    again = Predictor(refuse, first.card, CPU, engine, weights)
    np.testing.assert_array_equal(again.predict(scan).labels, found.labels)
    other = model(engine, seed=1).anatomy.network.state_dict()
    with pytest.raises(AssertionError, match="was built"):
        Predictor(refuse, first.card, CPU, engine, other)


def test_auto_refuses_an_engine_that_finds_something_else(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch_graph(monkeypatch, lambda image: torch.rand(1, 3, *image.shape[2:]))
    chosen, expected = model("auto"), model("torch").predict(scan).labels
    for _ in range(2):
        np.testing.assert_array_equal(chosen.predict(scan).labels, expected)
    printed = capsys.readouterr().out
    assert printed.startswith("engine: torch, since openvino is not as good: ")
    assert printed.count("engine:") == 1


def test_auto_takes_torch_where_an_engine_fails(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(image: Tensor) -> Tensor:
        raise RuntimeError("no such operation")

    patch_graph(monkeypatch, fail)
    expected = model("torch").predict(scan).labels
    np.testing.assert_array_equal(model("auto").predict(scan).labels, expected)
    assert "cannot run the network: no such operation" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="no such operation"):
        model("openvino").predict(scan)


def test_nothing_is_decided_by_a_scan_in_which_nothing_is_found(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = torch.tensor([9.0, 0, 0])[None, :, None, None, None]
    patch_graph(monkeypatch, lambda image: empty.expand(1, 3, *image.shape[2:]).clone())
    chosen = model("auto")
    for parameter in chosen.anatomy.head.parameters():
        torch.nn.init.zeros_(parameter)  # all scores are equal: the background is the first
    assert not chosen.predict(scan).labels.any()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        # torch, the engine, and where a call is short both again, in turn
        ([0.9, 0.2, 0.3, 0.3], "1.5 times as fast"),
        ([3.0, 0.5, 0.6, 0.6], "1.2 times as fast"),
        ([6.0, 2.0], "3.0 times as fast"),
    ],
)
def test_short_calls_are_timed_once_more(
    seconds: list[float],
    said: str,
    scan: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    network = model("torch").anatomy.network
    patch_graph(monkeypatch, network)
    chosen, left = model("auto"), iter(seconds)
    timed = engine_choice._timed
    monkeypatch.setattr(engine_choice, "_timed", lambda *call: (timed(*call)[0], next(left)))
    chosen.predict(scan)
    assert said in capsys.readouterr().out
    assert not [*left]


@pytest.mark.parametrize(
    ("engine", "network", "said"),
    [
        ("openvino", SwinUNETRSettings(), "models=swinunetr cannot run as a graph"),
        ("torch-bf16", TINY, "no arithmetic for bfloat16"),
        ("openvino", TINY, r"pip install 'hsf-finetune\[engines\]'"),
    ],
)
def test_engines_that_cannot_run(
    engine: EngineName, network: Any, said: str, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "computes_bf16", lambda device: False)
    monkeypatch.setattr(engines, "is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=said):
        model(engine, network=network).predict(scan)
