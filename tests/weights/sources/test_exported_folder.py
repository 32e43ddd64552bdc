"""An export to nnU-Net that was changed since is read as its own files describe it."""

from __future__ import annotations

from pathlib import Path

import hsf_finetune as hf
from hsf_finetune.weights.sources.read_source import read_source
from tests.export.models import OF_NNUNET, random_model


def test_the_card_counts_until_a_file_is_changed(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    hf.export(random_model(OF_NNUNET, padding="end"), "nnunet", folder, proof=False)
    (folder / "README.md").write_text("mine")
    found = read_source(folder).preprocessing
    assert found is not None
    assert (found.crop, found.padding) == ("margins", "end")
    (plans,) = folder.glob("*/*/plans.json")
    plans.write_text(plans.read_text() + "\n")
    changed = read_source(folder).preprocessing
    assert changed is not None
    assert (changed.crop, changed.padding) == ("nonzero", "symmetric")
