"""The trainer is quiet about what is no news, and not about the rest."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from hsf_finetune.config.settings import LightningSettings, LoggerSettings
from hsf_finetune.training.trainer import make_trainer


def test_a_machine_with_srun_gives_no_hint_and_other_warnings_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(srun.parent), prepend=":")
    settings = LightningSettings(accelerator="cpu", devices=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(settings, LoggerSettings(name="csv"), tmp_path / "run", 1, [])
        warnings.warn("a real one", stacklevel=1)
    texts = [str(one.message) for one in caught]
    assert not [text for text in texts if "srun" in text]
    assert "a real one" in texts
