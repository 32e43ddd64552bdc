"""Classes, label values, and the sets of classes that label values stand for.

Loss, metrics, sampling and head transfer read the boolean matrix of a
`LabelMap`; nothing else in the package knows what a label value means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from hsf_finetune.system.errors import ConfigError

BACKGROUND = "background"
BACKGROUND_ROW = 0
"""The label row of raw value 0, which padded voxels get."""

_SIDE = re.compile(r"left|right|(?<![^\W_])(l|r|lh|rh)(?![^\W_])", re.IGNORECASE)
"""The words anywhere, since a flip too few is harmless; the letters only by themselves."""
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l", "lh": "rh", "rh": "lh"}


def other_side(name: str) -> str | None:
    """A class name with left and right exchanged; None where it says neither."""

    def exchanged(found: re.Match[str]) -> str:
        word = found.group()
        other = _OTHER[word.lower()]
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    renamed, count = _SIDE.subn(exchanged, name)
    return renamed if count else None


def side_of(name: str) -> Literal["left", "right"] | None:
    """The side that a class's or a file's name speaks of; None where it is neither, or both."""
    sides = {found.group()[0].lower() for found in _SIDE.finditer(name)}
    if len(sides) != 1:
        return None
    return "left" if sides == {"l"} else "right"


@dataclass(frozen=True)
class ClassSpace:
    """The classes a model tells apart, in the order of its output channels.

    Args:
        names: one name per output channel; the first is the background.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuses anything that is not a background and distinct other names."""
        if len(self.names) < 2 or self.names[0] != BACKGROUND:
            raise ConfigError(
                "a model needs the background and at least one more class",
                found=list(self.names),
                fix="name the labels in datasets.<name>.labels_names",
            )
        if len(set(self.names)) != len(self.names):
            raise ConfigError("class names must differ", found=list(self.names))

    def __len__(self) -> int:
        """Number of output channels, background included."""
        return len(self.names)

    @property
    def foreground(self) -> tuple[str, ...]:
        """Every class but the background."""
        return self.names[1:]

    def index(self, name: str) -> int:
        """Output channel of a class.

        Raises:
            ConfigError: there is no class of that name.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise ConfigError(
                f"no class is called '{name}'", expected=", ".join(self.names)
            ) from None


@dataclass(frozen=True)
class LabelMap:
    """What each value of a label file says about the class of its voxel.

    A value stands for a *set* of classes: one class where the annotation is
    exact, several where the protocol merges them. The different sets are numbered,
    that of value 0 first and the others by ascending value, and that number (the
    *label row*) is what preprocessed label volumes hold. Values that mean the same
    share a row.

    Args:
        space: the model's classes.
        sets: raw label value -> names of the classes a voxel of that value may be.
        titles: what the dataset itself calls some of the sets.
    """

    space: ClassSpace
    sets: tuple[tuple[int, frozenset[str]], ...]
    titles: tuple[tuple[frozenset[str], str], ...] = ()

    @classmethod
    def from_sets(
        cls,
        space: ClassSpace,
        sets: Mapping[int, Iterable[str]],
        titles: Mapping[frozenset[str], str] | None = None,
    ) -> LabelMap:
        """The label map of `{raw value: class names}`; 0 is background unless given."""
        full = {0: frozenset({BACKGROUND})} | {int(v): frozenset(s) for v, s in sets.items()}
        for value, names in full.items():
            for name in names:
                space.index(name)
            if not names:
                raise ConfigError(f"label value {value} stands for no class")
        if BACKGROUND not in full[0]:
            raise ConfigError(
                "label value 0 must be the background, since it fills padded voxels",
                found=", ".join(sorted(full[0])),
                fix="write the label files with another value for this class",
            )
        if len(full) > 255:
            raise ConfigError("more than 255 label values", found=len(full))
        return cls(space, tuple(sorted(full.items())), tuple((titles or {}).items()))

    @cached_property
    def values(self) -> npt.NDArray[np.int64]:
        """Raw values in ascending order, shape (values,)."""
        return np.array([value for value, _ in self.sets], dtype=np.int64)

    @cached_property
    def row_sets(self) -> tuple[frozenset[str], ...]:
        """The set of classes of each label row, each once."""
        return tuple(dict.fromkeys([dict(self.sets)[0], *(names for _, names in self.sets)]))

    @cached_property
    def matrix(self) -> npt.NDArray[np.bool_]:
        """Which classes each label row allows, shape (rows, classes)."""
        allowed = np.zeros((len(self.row_sets), len(self.space)), dtype=bool)
        for row, names in enumerate(self.row_sets):
            allowed[row, [self.space.index(name) for name in names]] = True
        return allowed

    @property
    def foreground_rows(self) -> npt.NDArray[np.bool_]:
        """Whether a label row rules the background out, shape (rows,)."""
        return np.asarray(~self.matrix[:, 0])

    @property
    def stated_rows(self) -> npt.NDArray[np.bool_]:
        """Whether a label row says anything, that is rules any class out, shape (rows,)."""
        return np.asarray(~self.matrix.all(axis=1))

    @cached_property
    def row_names(self) -> tuple[str, ...]:
        """What to call each label row: the dataset's name for it, or its classes."""
        own = dict(self.titles)
        return tuple(own.get(names) or set_name(self.space, names) for names in self.row_sets)

    def unknown(self, raw: npt.NDArray[np.int64]) -> dict[int, int]:
        """Raw values that the map does not list, with their voxel counts."""
        found, counts = np.unique(raw, return_counts=True)
        known = np.isin(found, self.values)
        return {int(v): int(n) for v, n in zip(found[~known], counts[~known], strict=True)}

    def rows(self, raw: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Label rows of raw values, same shape; every value must be known."""
        row_of = np.array([self.row_sets.index(names) for _, names in self.sets], dtype=np.uint8)
        return row_of[np.searchsorted(self.values, raw)]

    def value_of(self) -> dict[str, int]:
        """The raw value to write for each class: the smallest that means it alone.

        Negative values come last, since predictions are unsigned where they can be.
        The background is 0 where no value means it alone, and another class gets a
        fresh value above all others, so that no other class is ever read into it.
        """
        chosen: dict[str, int] = {}
        for value, names in sorted(self.sets, key=lambda row: (row[0] < 0, row[0])):
            if len(names) == 1:
                chosen.setdefault(next(iter(names)), value)
        chosen.setdefault(BACKGROUND, 0)
        fresh = int(self.values.max()) + 1
        for name in self.space.names:
            if name not in chosen:
                chosen[name], fresh = fresh, fresh + 1
        return {name: chosen[name] for name in self.space.names}


def set_name(space: ClassSpace, names: Iterable[str]) -> str:
    """The classes of a set in the model's order, joined by `+`."""
    found = frozenset(names)
    return "+".join(name for name in space.names if name in found)


def ordered_union(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Names in the order of their first appearance, each once."""
    return tuple(dict.fromkeys(name for group in groups for name in group))
