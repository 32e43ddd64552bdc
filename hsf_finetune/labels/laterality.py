"""Left and right in the names of classes and files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

_WORDS = (
    ("left", "right"),
    ("gauche", "droit"),
    ("gauche", "droite"),
    ("izquierd", "derech"),
    ("esquerd", "direit"),
    ("sinistr", "destr"),
    ("sinistr", "dextr"),
    ("sinister", "dexter"),
    ("links", "rechts"),
    ("linke", "rechte"),
    ("vänster", "höger"),
    ("venstre", "højre"),
    ("venstre", "høyre"),
    ("vasen", "oikea"),
    ("lewy", "prawy"),
    ("lewa", "prawa"),
    ("levá", "pravá"),
    ("levý", "pravý"),
    ("lijev", "desn"),
    ("stâng", "drept"),
    ("stâng", "dreapt"),
    ("kiri", "kanan"),
    ("trái", "phải"),
    ("levo", "pravo"),
    ("лев", "прав"),
    ("лів", "прав"),
    ("kair", "dešin"),
    ("vasak", "parem"),
    ("αριστερ", "δεξι"),
    ("يسار", "يمين"),
    ("چپ", "راست"),
    ("שמאל", "ימין"),
    ("बाय", "दाय"),
    ("ซ้าย", "ขวา"),
    ("左", "右"),
    ("왼", "오른"),
)
"""Words, or their beginnings, that may stand anywhere in a name."""
_ABBREVIATIONS = (
    ("l", "r"),
    ("lh", "rh"),
    ("lt", "rt"),
    ("lft", "rgt"),
    ("lft", "rht"),
    ("izq", "der"),
    ("izq", "dcha"),
    ("izda", "dcha"),
    ("gche", "dte"),
    ("esq", "dir"),
    ("sin", "dex"),
    ("sin", "dext"),
    ("sin", "des"),
    ("sx", "dx"),
    ("sn", "dx"),
    ("lks", "rts"),
    ("li", "re"),
    ("sol", "sağ"),
    ("bal", "jobb"),
)
"""Whole parts of a name."""
_INITIALS = ("gd", "ed", "id")
"""Of gauche and droite, esquerdo and direito, izquierdo and derecho; they mean other things too."""
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
"""A part of a name: ant and L of `antL`, CA and l of `CA1l`, l and Hippocampus of `lHippocampus`."""
_EDGE_L = re.compile(r"(?<![^\W\d_])[lL]|[lL](?![^\W\d_])")
"""An l with which letters begin or end, as in SUBL."""
_SIDE = re.compile(
    r"(?<!c)(?<!\bC)(?i:left)|(?<![bfw])(?<!\b[BFW])(?i:right)"  # but not cleft and bright
    r"|(?i:gauche|droite|izquierd|derech|esquerd|direit|sinistr|links|rechts)"
    r"|(?<![^\W_])(?i:l|r|lh|rh|lt|rt)(?![^\W_])"
)
"""What names a side even if the other one is not there: long words, and letters by themselves."""
_LEFT_SIDE, _RIGHT_SIDE = (
    (words, abbreviations)
    for words, abbreviations in zip(
        zip(*_WORDS, strict=True), zip(*_ABBREVIATIONS, strict=True), strict=True
    )
)
"""Of each side the words and the abbreviations."""


class SidePair(NamedTuple):
    """Two names that differ in left and right only.

    Args:
        left: the one.
        right: the other.
        certain: whether what they differ in can hardly mean anything else; a letter within a
            word can, as in SL and SR, the strata lucidum and radiatum.
    """

    left: str
    right: str
    certain: bool


def find_side_pairs(names: Sequence[str]) -> list[SidePair]:
    """The pairs among some names, in their order; a name is in one pair at most."""
    folded = {name.casefold(): name for name in names}
    pairs: list[SidePair] = []
    for name in names:
        forms = [(folded.get(form), True) for form in _right_forms(name)]
        forms += [(form, False) for form in _doubtful_right_forms(name, names) if form in names]
        paired = {one for pair in pairs for one in pair[:2]}
        for other, certain in forms:
            if other and other != name and not paired & {name, other}:
                pairs.append(SidePair(name, other, certain))
                break
    return sorted(pairs, key=lambda pair: min(names.index(pair.left), names.index(pair.right)))


def side_of(name: str) -> Literal["left", "right"] | None:
    """The side that the name of a class or file contains; None where it has neither or both."""
    left = {*_LEFT_SIDE[0], *_LEFT_SIDE[1]}
    sides = {found.group().lower() in left for found in _SIDE.finditer(name)}
    if len(sides) != 1:
        return None
    return "left" if sides == {True} else "right"


def without_side(name: str) -> tuple[str, Literal["left", "right"] | None]:
    """A name without the parts that name one side, and the side; the name itself if none do."""
    found: set[bool] = set()

    def drop(part: re.Match[str]) -> str:
        word = part.group().casefold()
        for is_left, (words, short) in ((True, _LEFT_SIDE), (False, _RIGHT_SIDE)):
            if word in short or word.startswith(words):
                found.add(is_left)
                return ""
        return part.group()

    rest = _PART.sub(drop, name)
    if len(found) != 1:
        return name, None
    return rest, "left" if found == {True} else "right"


def _right_forms(name: str) -> set[str]:
    """The name, in lower case, with some or all words for left turned into words for right."""
    forms = {name}
    for left, right in _WORDS:
        forms |= {re.sub(left, right, form, flags=re.IGNORECASE) for form in forms}
    for left, right in _ABBREVIATIONS:

        def exchange(part: re.Match[str], left: str = left, right: str = right) -> str:
            return right if part.group().lower() == left else part.group()

        forms |= {_PART.sub(exchange, form) for form in forms}
    return {form.casefold() for form in forms if form != name}


def _doubtful_right_forms(name: str, names: Sequence[str]) -> Iterator[str]:
    """The name with one letter exchanged that may stand for left."""
    for found in _EDGE_L.finditer(name):
        letter = "R" if found.group() == "L" else "r"
        yield name[: found.start()] + letter + name[found.end() :]
    for part in _PART.finditer(name):
        before, letter, after = name[: part.start()], part.group(), name[part.end() :]
        if len(letter) != 1 or not before + after:
            continue
        # Of an enumeration (layer_c, layer_d, layer_e) no two letters are sides.
        alike = [other for other in names if len(other) == len(name)]
        alike = [o for o in alike if o.startswith(before) and o.endswith(after)]
        letters = {other[part.start()].lower() for other in alike}
        if any(letters == {*pair} and letter.lower() == pair[0] for pair in _INITIALS):
            yield from (other for other in alike if other != name)
