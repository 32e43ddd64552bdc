"""Colours of classes come from the table beside the training data, into the model's card."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.planning.training_colours import training_colours
from hsf_finetune.system.errors import DataError
from tests.data.writing import pair, settings
from tests.export.models import random_model

TABLES = {
    "dseg.tsv": "index\tname\tcolor\n1\tdentate\t#0A0B0C\n7\tother\t#FFFFFF\n",
    "lut.txt": "0 Unknown 0 0 0 0\n1 dentate 10 11 12 0\n7 other 255 255 255 0\n",
    "itksnap.txt": '0 0 0 0 0 0 0 "Clear"\n1 10 11 12 1 1 1 "den tate"\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_the_colour_of_a_value_is_that_of_its_class(tmp_path: Path, name: str) -> None:
    pair(tmp_path, "a.nii.gz", "a_seg.nii.gz")
    (tmp_path / name).write_text(TABLES[name])
    patterns = {"t2": {"mri": "a.nii.gz", "label": "*_seg.nii.gz"}}
    data = settings(tmp_path, patterns, lut=name)
    assert training_colours(data, discover(data)) == {"DG": (10, 11, 12)}
    (tmp_path / name).write_text("index\tname\n1\tdentate\n")
    with pytest.raises(DataError, match=f"no table of colours[\\s\\S]*{name}"):
        training_colours(data, discover(data))


def test_a_card_keeps_its_colours() -> None:
    card = random_model().card
    plain = {**card.to_dict(), "colours": {"posterior": [1, 2, 3]}}
    rows = ModelCard.from_dict(plain).label_rows
    assert [(row.value, row.name) for row in rows] == [(20, "anterior"), (10, "posterior")]
    assert rows[1].colour == (1, 2, 3)
    assert rows[1].hex == "#010203"
    del plain["colours"]  # an earlier version's
    assert ModelCard.from_dict(plain).label_rows == card.label_rows
