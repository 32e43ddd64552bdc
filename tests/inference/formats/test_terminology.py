"""Codes of classes: those that DICOM's dictionary has, and those of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.sr._concepts_dict import concepts

from hsf_finetune.inference.formats import terminology
from hsf_finetune.inference.formats.terminology import ABNORMAL, find_codes, require_codes
from hsf_finetune.system.errors import ConfigError


def test_snomed_codes_are_those_of_dicom() -> None:
    known = {code for meanings in concepts["SCT"].values() for code in meanings}
    for line in (terminology._SNOMED + terminology._ABNORMAL).split("\n"):
        if line:
            value, meaning = line.split(":")[0].split(" ", 1)
            assert value in known, meaning


@pytest.mark.parametrize(
    ("name", "meaning", "side"),
    [
        ("left_hippocampus", "Hippocampus", "Left"),
        ("Right-Hippocampus", "Hippocampus", "Right"),
        ("Hippocampus", "Hippocampus", None),
        ("CA1_l", "CA1 field of hippocampus", "Left"),
        ("DG", "dentate gyrus of hippocampal formation", None),
        ("Left ventricle", "Left ventricle", None),
        ("lateral ventricle left", "Lateral Ventricle", "Left"),
        ("Liver", "Liver", None),
    ],
)
def test_names_are_found_with_their_side(name: str, meaning: str, side: str | None) -> None:
    found = find_codes([name])[name]
    assert found.type.meaning == meaning
    assert (found.side.meaning if found.side else None) == side


def test_a_file_adds_codes_and_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    file.write_text(
        "class,code,scheme,meaning,category\nliver,1,99LAB,our liver,\nblob,2,99LAB,blob,abnormal\n"
    )
    found = require_codes(["liver", "left blob", "spleen"], file)
    assert found["liver"].type == ("1", "99LAB", "our liver")
    assert found["left blob"].category == ABNORMAL
    assert found["spleen"].type.value == "78961009"
    with pytest.raises(ConfigError, match=r"found:\s+anterior[\s\S]*class,code,scheme,meaning"):
        require_codes(["liver", "anterior"], file)


@pytest.mark.parametrize("text", ["", "class,code\na,1\n", "class,code,scheme,meaning\na,1,,b\n"])
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "codes.csv"
    file.write_text(text)
    if not text:
        file.unlink()
    with pytest.raises(ConfigError, match=r"cannot be read[\s\S]*codes\.csv"):
        find_codes(["a"], file)
