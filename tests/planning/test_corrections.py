"""Tables beside corrections: whether their values mean what the model's mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hsf_finetune.inference.formats.colour_tables import bids_text, freesurfer_text, itksnap_text
from hsf_finetune.labels.label_colours import LabelRow
from hsf_finetune.planning.corrections import find_other_tables
from tests.export.models import random_model


@pytest.mark.parametrize("values", [{"CA 1": 1, 'x "y"': 2}, {"CA 1": 2, 'x "y"': 1}, {"CA 1": 1}])
@pytest.mark.parametrize(
    ("file", "text_of"),
    [
        ("labels_itksnap.txt", itksnap_text),
        ("labels_freesurfer.txt", freesurfer_text),
        ("site/dseg.tsv", bids_text),
    ],
)
def test_only_a_table_of_the_models_own_values_is_taken(
    tmp_path: Path, file: str, text_of: Callable[[list[LabelRow]], str], values: dict[str, int]
) -> None:
    own = {"background": 0, "CA 1": 1, 'x "y"': 2}
    card = replace(random_model().card, classes=tuple(own), label_values=own)
    (tmp_path / "site").mkdir()
    rows = [LabelRow(value, name, (1, 2, 3)) for name, value in values.items()]
    (tmp_path / file).write_text(text_of(rows))
    problems = [*find_other_tables(tmp_path, card)]
    assert len(problems) == (values != {"CA 1": 1, 'x "y"': 2})
