"""The YAMLs that init writes train as they are, through the real entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.describe.describe_folder import describe_folder
from hsf_finetune.experiment.run import run_experiment
from tests.conftest import FAST
from tests.describe import layouts
from tests.describe.layouts import FOUR, NAMES, Layout


@pytest.mark.parametrize("layout", FOUR, ids=lambda layout: layout.__name__)
def test_the_yaml_trains_unedited(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path / "lab", layouts.sources(tmp_path / "sources"))
    yaml = describe_folder(tmp_path / "lab", tmp_path / "conf" / "datasets" / "mine.yaml")
    run = run_experiment(
        compose(
            "train",
            [
                "datasets=mine",
                f"datasets.output_path={tmp_path / 'outputs'}",
                "datasets.fold=null",
                "datasets.patch_vox=[16,16,16]",
                "datasets.k_sample=2",
                "lightning.max_epochs=1",
                *FAST,
            ],
            yaml.parent.parent,
        )
    )
    assert (run.folder / "result.json").exists()
    assert {row.score.class_name for row in run.after} >= {*NAMES}
