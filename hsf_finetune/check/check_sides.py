"""Left and right: what names say, compared with where the voxels lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from hsf_finetune.check.findings import Finding
from hsf_finetune.check.measured_cases import MIN_CASES, MeasuredCase
from hsf_finetune.labels.laterality import SidePair, find_side_pairs, side_of

_SURE_SHARE = 0.75
"""Share of the files that have to agree before the others are taken for wrong."""
_CLEAR_MM = 2.0


def check_sides(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Classes and files that are named after one side and lie on the other."""
    yield from _check_classes(cases)
    yield from _check_files(cases)


def _check_classes(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Classes of two sides: the left one should have the smaller x in RAS+."""
    paired = [(case, pairs) for case in cases if (pairs := _find_pairs(case))]
    crossed = [
        (case, pairs)
        for case, pairs in paired
        if 2 * sum(left_x > right_x for _, left_x, right_x in pairs) > len(pairs)
    ]
    only_some = len(crossed) < len(paired)
    for case, pairs in crossed:
        pair = pairs[0][0]
        yield Finding(
            "refused" if only_some else "warned",
            "label/sides exchanged",
            f"{pair.left} lies to the right of {pair.right}"
            + (", unlike in the other cases" if only_some else ", in every case"),
            case.label_file,
            case.name,
            f"{len(crossed)} of {len(paired)} cases",
            "left on the left, by the header's own orientation",
            "check the header's orientation (it may be mirrored), or exchange the two values "
            "under labels: for these cases",
        )


def _find_pairs(case: MeasuredCase) -> list[tuple[SidePair, float, float]]:
    """Left and right classes that are both drawn, and lie apart; x of both in mm."""
    x_mm = dict(zip(case.protocol.row_names, case.facts.read_measures().row_x_mm, strict=True))
    pairs = _pairs_of(tuple(name for name, x in x_mm.items() if x is not None))
    placed = [
        (pair, x_mm[pair.left] or 0.0, x_mm[pair.right] or 0.0) for pair in pairs if pair.certain
    ]
    return [one for one in placed if abs(one[1] - one[2]) > _CLEAR_MM]


@cache  # most cases have the same classes
def _pairs_of(names: tuple[str, ...]) -> list[SidePair]:
    return find_side_pairs(names)


def _check_files(cases: Sequence[MeasuredCase]) -> Iterator[Finding]:
    """Files named left or right, where most of them lie on that side of the scanner."""
    sided = [
        (case, side, centre[0])
        for case in cases
        if (side := side_of(case.case.images[0].path.name))
        and (centre := case.facts.read_measures().centre_mm)
        and abs(centre[0]) > _CLEAR_MM
    ]
    wrong = [(case, side, x) for case, side, x in sided if (x > 0) != (side == "right")]
    if len(sided) < MIN_CASES or len(wrong) > (1 - _SURE_SHARE) * len(sided):
        return
    for case, side, x in wrong:
        yield case.warn_image(
            "geometry/side",
            f"the file is named after the {side} side, but its label lies on the other one",
            found=f"{abs(x):.0f} mm to the {'right' if x > 0 else 'left'}",
            expected=f"on the {side}: {len(sided) - len(wrong)} of {len(sided)} files lie where their "
            "names say",
            fix="check the name, and the header's orientation, which may be mirrored",
        )
