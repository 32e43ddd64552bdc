"""Left and right: what names say, against where the voxels lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hsf_finetune.check.findings import Finding
from hsf_finetune.check.measured_cases import FEWEST, Member
from hsf_finetune.labels.classes import other_side, side_of

_SURE_SHARE = 0.75
"""Share of the cases that have to agree before the rest is taken for wrong."""
_CLEAR_MM = 2.0


def side_findings(members: Sequence[Member]) -> Iterator[Finding]:
    """Classes and files named after one side that lie on the other."""
    yield from _classes(members)
    yield from _files(members)


def _classes(members: Sequence[Member]) -> Iterator[Finding]:
    """Classes that come in pairs: the left one lies left, which is smaller x in RAS+."""
    crossed = [m for m in members if _is_crossed(m)]
    paired = [m for m in members if _pairs(m)]
    some = len(crossed) < len(paired)
    for member in crossed:
        left, right = _pairs(member)[0]
        yield Finding(
            "refused" if some else "warned",
            "label/sides exchanged",
            f"{left} lies to the right of {right}"
            + (", unlike in the other cases" if some else ", in every case"),
            member.label,
            member.case.name,
            f"{len(crossed)} of {len(paired)} cases",
            "left on the left, by the header's own orientation",
            "check the header's orientation (it may be mirrored), or exchange the two values "
            "under labels: for these cases",
        )


def _pairs(member: Member) -> list[tuple[str, str]]:
    """Classes of both sides that are drawn in a case, and lie apart."""
    names = member.case.protocol.row_names
    places = dict(zip(names, member.measured.row_x_mm, strict=True))
    found = []
    for name in names:
        partner = other_side(name)
        if side_of(name) == "left" and partner is not None:
            here, there = places.get(name), places.get(partner)
            if here is not None and there is not None and abs(here - there) > _CLEAR_MM:
                found.append((name, partner))
    return found


def _is_crossed(member: Member) -> bool:
    places = dict(zip(member.case.protocol.row_names, member.measured.row_x_mm, strict=True))
    pairs = _pairs(member)
    wrong = [pair for pair in pairs if (places[pair[0]] or 0.0) > (places[pair[1]] or 0.0)]
    return len(wrong) > len(pairs) / 2


def _files(members: Sequence[Member]) -> Iterator[Finding]:
    """Files named left or right, where most of them lie on that side of the scanner."""
    sided = [
        (m, side, m.measured.centre_mm[0])
        for m in members
        if (side := side_of(m.case.images[0].path.name)) and m.measured.centre_mm is not None
        if abs(m.measured.centre_mm[0]) > _CLEAR_MM
    ]
    wrong = [(m, side, x) for m, side, x in sided if (x > 0) != (side == "right")]
    if len(sided) < FEWEST or len(wrong) > (1 - _SURE_SHARE) * len(sided):
        return
    for member, side, x in wrong:
        yield Finding(
            "warned",
            "geometry/side",
            f"the file is named after the {side} side, but its label lies on the other one",
            member.image,
            member.case.name,
            f"{abs(x):.0f} mm to the {'right' if x > 0 else 'left'}",
            f"on the {side}, as {len(sided) - len(wrong)} of {len(sided)} files lie where their "
            "names say",
            "check the name and the header's orientation, which may be mirrored",
        )
