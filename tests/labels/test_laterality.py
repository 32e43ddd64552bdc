"""Left and right in names."""

from __future__ import annotations

import pytest

from hsf_finetune.labels.laterality import find_side_pairs, side_of

CERTAIN = [
    ("DG_left", "DG_right"),
    ("left DG", "right DG"),
    ("L-DG", "R-DG"),
    ("DG.l", "DG.r"),
    ("lh.DG", "rh.DG"),
    ("DG (L)", "DG (R)"),
    ("LeftDG", "RightDG"),
    ("hippocampusLeft", "hippocampusRight"),
    ("HIPP_LEFT", "HIPP_RIGHT"),
    ("antL", "antR"),
    ("CA1L", "CA1R"),
    ("CA1l_head", "CA1r_head"),
    ("lHippocampus", "rHippocampus"),
    ("LHippocampus", "RHippocampus"),
    ("HippL", "HippR"),
    ("HippLt", "HippRt"),
    ("CA1_lt", "CA1_rt"),
    ("L_CA1_left", "R_CA1_right"),
    ("hippocampe gauche", "hippocampe droit"),
    ("corne_gauche", "corne_droite"),
    ("links DG", "rechts DG"),
    ("linker Hippocampus", "rechter Hippocampus"),
    ("hipocampo izquierdo", "hipocampo derecho"),
    ("circunvolución izquierda", "circunvolución derecha"),
    ("CA1_izq", "CA1_der"),
    ("hipocampo esquerdo", "hipocampo direito"),
    ("ippocampo sinistro", "ippocampo destro"),
    ("sinistra", "destra"),
    ("CA1_sx", "CA1_dx"),
    ("hippocampus sinister", "hippocampus dexter"),
    ("venstre hippocampus", "højre hippocampus"),
    ("左海馬", "右海馬"),
]
DOUBTFUL = [
    ("SUBL", "SUBR"),
    ("DGl", "DGr"),
    ("lhipp", "rhipp"),
    ("HippG", "HippD"),
    ("hipocampo E", "hipocampo D"),
    ("hipocampo_I", "hipocampo_D"),
]


@pytest.mark.parametrize(("left", "right"), CERTAIN + DOUBTFUL)
@pytest.mark.parametrize("turned", [False, True])
def test_sides_are_paired_where_both_are_there(left: str, right: str, turned: bool) -> None:
    names = ["DG", right, "alveus", left] if turned else [left, "alveus", right]
    (pair,) = find_side_pairs(names)
    assert pair == (left, right, (left, right) in CERTAIN)
    assert find_side_pairs([left, "DG", "alveus"]) == []
    assert find_side_pairs([right, "DG", "alveus"]) == []


@pytest.mark.parametrize(
    "names",
    [
        ("DG", "CA", "SUBL"),
        ("CA1", "CA2", "CA3", "SUB", "PRESUB", "SRLM", "alveus", "fimbria"),
        ("synaptic_cleft", "bright"),
        tuple(f"layer_{letter}" for letter in "abcdefg"),
        ("D", "G"),
        ("CA2/3", "CA2/CA3", "ca2/3"),
    ],
)
def test_other_names_are_no_sides(names: tuple[str, ...]) -> None:
    assert find_side_pairs(names) == []


def test_many_classes_give_each_pair_once_in_their_order() -> None:
    names = ["R_DG", "antL", "L_DG", "posterior", "antR", "L_CA1", "R_CA1"]
    pairs = [(pair.left, pair.right) for pair in find_side_pairs(names)]
    assert pairs == [("L_DG", "R_DG"), ("antL", "antR"), ("L_CA1", "R_CA1")]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("sub-1_hemi-L_T2w.nii.gz", "left"),
        ("right_DG", "right"),
        ("left_and_right", None),
        ("sub-1_T2w.nii.gz", None),
        ("hipocampo_izquierdo", "left"),
        ("DG droite", "right"),
        ("DG_rt", "right"),
        ("synaptic_cleft", None),
        ("Cleft", None),
        ("brightness", None),
        ("SUBL", None),
        ("R1", None),
        ("PRESUB", None),
    ],
)
def test_a_name_has_one_side_or_none(name: str, side: str | None) -> None:
    assert side_of(name) == side
