"""The user's own folder may hold files that others wrote: they cannot read the environment, nor take long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hsf_finetune.config.compose import compose
from hsf_finetune.system.errors import ConfigError


def composed(folder: Path, text: str) -> object:
    file = folder / "datasets" / "mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    pattern = "{a: {mri: '*_im.nii.gz', label: '*_seg.nii.gz'}}"
    dataset = f"path: ., labels_names: {{1: a}}, patterns: {pattern}"
    file.write_text(f"datasets: {{mine: {{{dataset}}}}}\n{text}\n")
    return compose("train", ["datasets=mine"], folder).datasets


@pytest.mark.parametrize(
    "text",
    [
        "main_path: /data/${oc.env:PASSWORD}",
        "main_path: ${oc.env:'PASSWORD'}",
        "main_path: ${oc.${datasets.word}:PASSWORD}\nword: env",
        "main_path: ${oc.decode:${oc.env:PASSWORD}}",
        "output_path: ${oc.env:PASSWORD,nothing}",
    ],
)
def test_text_of_the_environment_does_not_become_a_setting(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "hush-hush")
    with pytest.raises(ConfigError, match="PASSWORD") as caught:
        composed(tmp_path, text)
    assert "hush-hush" not in str(caught.value)


def test_paths_numbers_and_names_of_jobs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_NAME", "night")
    monkeypatch.setenv("CPUS", "3")
    found = composed(
        tmp_path,
        "main_path: ${oc.env:DATA}/x\noutput_path: /out/${oc.env:SLURM_JOB_NAME}\n"
        "num_workers: ${oc.env:CPUS}\ncache_dir: ${oc.env:NOT_THERE,/cache}",
    )
    assert found.main_path == f"{tmp_path}/x"  # type: ignore[attr-defined]
    assert found.output_path == "/out/night"  # type: ignore[attr-defined]
    assert found.num_workers == 3  # type: ignore[attr-defined]
    assert found.cache_dir == "/cache"  # type: ignore[attr-defined]


def test_other_programs_keep_their_environment(tmp_path: Path) -> None:
    compose("train", ["datasets=phantom"])
    assert OmegaConf.create({"a": "${oc.env:PATH}"}).a == os.environ["PATH"]


def test_a_file_that_takes_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too large"):
        composed(tmp_path, "k: [" + "x, " * 30_000 + "x]")
