"""nnU-Net's numbers of channels in the names of files: `case_0000`, `case_0001`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_NUMBERED = re.compile(r"(.+)_(\d{4})", re.DOTALL)


def split_channel(name: str) -> tuple[str, int] | None:
    """Case and channel of a name: `case_0001` gives `case` and 1; None without such a number."""
    match = _NUMBERED.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def without_channel(name: str) -> str:
    """The name of a case in the name of one of its channels: `case` in `case_0000`."""
    split = split_channel(name)
    return split[0] if split else name


def find_channels(names: Iterable[str]) -> dict[str, str]:
    """The names that end in the number of a channel, each with the name of its case.

    Such numbers begin with 0 in every case and are the same few in several cases, or 0 alone;
    those of `scan_0000` to `scan_0019` tell scans apart.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    cases = {name: split for name in names if (split := split_channel(name))}
    for case, number in cases.values():
        numbers[case].add(number)
    sets = {case: frozenset(found) for case, found in numbers.items()}
    uses = Counter(sets.values())
    channels = {
        case
        for case, found in sets.items()
        if found == {*range(len(found))} and len(found) <= uses[found]
    }
    return {name: case for name, (case, _) in cases.items() if case in channels}
