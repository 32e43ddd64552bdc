"""Names that are probably meant as one class, or as a set, are said."""

from __future__ import annotations

from typing import Any

import pytest

from hsf_finetune.config.settings import ModelSettings
from hsf_finetune.labels.protocols import find_classes
from hsf_finetune.labels.similar_names import warn_similar_names
from tests.labels.test_protocols import datasets, lab


def warnings(models: ModelSettings | None = None, **given: Any) -> list[str]:
    described, models = datasets(**given), models or ModelSettings()
    return warn_similar_names(described.datasets, models, find_classes(described, models))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("DG", "dg"),
        ("Dentate Gyrus", "dentate_gyrus"),
        ("CA-1", "CA1"),
        ("CA23", "CA2/3"),
        ("CA23", "CA2/CA3"),
        ("ca2/3", "CA2/3"),
        ("L_DG", "DG_left"),
        ("CA1L", "L_CA1"),
        ("lh.DG", "left DG"),
        ("DG droite", "R-dg"),
    ],
)
def test_names_that_differ_in_case_blanks_or_separators_are_said(one: str, other: str) -> None:
    (line,) = warnings(a=lab(one, "SUB"), b=lab(other, "SUB"))
    assert one in line
    assert other in line
    assert "label_sets" in line


@pytest.mark.parametrize(
    ("ca_type", "name"),
    [
        ("1/2/3", "head"),
        ("1/2/3", "Tail"),
        ("1/23", "R_HEAD"),
        ("123", "TAIL_left"),
        ("123", "L_CA"),
        ("123", "ca"),
        ("1/23", "CA23 R"),
        ("1/23", "rCA23"),
    ],
)
def test_what_a_ca_type_would_make_a_set_is_said(ca_type: str, name: str) -> None:
    (line,) = warnings(a=lab("DG", "SUB", name, ca_type=ca_type))
    assert name in line
    assert f"ca_type: {ca_type}" in line
    assert warnings(a=lab("DG", "SUB", name)) == []


def test_a_merged_subfield_beside_its_parts_is_said() -> None:
    (line,) = warnings(a=lab("CA2", "CA3", "DG"), b=lab("CA23", "DG"))
    assert "label_sets: {CA23: [CA2, CA3]}" in line


@pytest.mark.parametrize(
    "given",
    [
        {"a": lab("L_DG", "R_DG", "DG"), "b": lab("CA1", "CA2", "CA3", "CA2/3")},
        {"a": lab("T1", "T2", "T12", "L1", "R1")},
        {"a": lab("DG", "CA", "HEAD", "TAIL", ca_type="123"), "b": lab("CA1", "CA2", "CA3", "SUB")},
        {"a": lab("DG", "SUB", "head", ca_type="123", label_sets={"head": "foreground"})},
        {"a": lab("DG", "dg", label_sets={"dg": ["DG"]})},
    ],
)
def test_other_names_are_not(given: dict[str, Any]) -> None:
    assert warnings(**given) == []


def test_names_that_the_model_lists_are_meant() -> None:
    assert warnings(ModelSettings(labels_names=["DG", "dg"]), a=lab("DG", "dg")) == []
