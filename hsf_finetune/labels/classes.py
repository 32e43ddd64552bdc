"""Classes, label values, and the sets of classes that label values stand for.

Loss, metrics, sampling and head transfer read the boolean matrix of a
`LabelMap`; nothing else in the package knows what a label value means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hsf_finetune.system.errors import ConfigError

BACKGROUND = "background"
BACKGROUND_ROW = 0
"""The label row of raw value 0, which padded voxels get."""
LABEL_VALUES = range(-(2**63), 2**63)
"""What a raw label value can be."""


@dataclass(frozen=True)
class ClassSpace:
    """The classes of a model, in the order of its output channels.

    Args:
        names: one name per output channel; the first is the background.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks that the background comes first, and that the names differ."""
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
        if name not in self.names:
            raise ConfigError(f"no class is called '{name}'", expected=", ".join(self.names))
        return self.names.index(name)


@dataclass(frozen=True)
class LabelMap:
    """The set of classes that each value of a label file stands for.

    The set holds one class where the annotation is exact, and several where the protocol
    merges them. The different sets are numbered, that of value 0 first and the others by
    ascending value. Preprocessed label volumes hold this number, the *label row*. Values
    with the same set share a row.

    Args:
        space: the model's classes.
        sets: (raw label value, names of the classes that a voxel of this value may be).
        titles: (set, name of the set in the dataset), where the dataset has such a name.
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
        """The label map of `{raw value: class names}`; 0 is the background unless given.

        Raises:
            ConfigError: a class is unknown, a set is empty, a value is too large, 0 excludes the background,
                or there are more than 255 values.
        """
        full = {0: frozenset({BACKGROUND})} | {int(v): frozenset(s) for v, s in sets.items()}
        for value, names in full.items():
            for name in names:
                space.index(name)
            if not names:
                raise ConfigError(f"label value {value} stands for no class")
            if value not in LABEL_VALUES:
                raise ConfigError(
                    "a label value is too large",
                    found=value,
                    expected=f"whole numbers from {LABEL_VALUES.start} to {LABEL_VALUES.stop - 1}",
                    fix="write another number in the label files",
                )
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
        """Whether a label row excludes the background, shape (rows,)."""
        return np.asarray(~self.matrix[:, 0])

    @property
    def informative_rows(self) -> npt.NDArray[np.bool_]:
        """Whether a label row excludes any class, shape (rows,)."""
        return np.asarray(~self.matrix.all(axis=1))

    @cached_property
    def row_names(self) -> tuple[str, ...]:
        """Name of each label row: that of the dataset, or its classes joined by `+`."""
        titles = dict(self.titles)
        return tuple(
            titles.get(names) or "+".join(name for name in self.space.names if name in names)
            for names in self.row_sets
        )

    def count_unknown(self, raw: npt.NDArray[np.int64]) -> dict[int, int]:
        """Raw value -> number of voxels, for values that the map does not list."""
        found, counts = np.unique(raw, return_counts=True)
        known = np.isin(found, self.values)
        return {int(v): int(n) for v, n in zip(found[~known], counts[~known], strict=True)}

    def rows(self, raw: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Label rows of raw values, of the same shape; the map must list every value."""
        row_of = np.array([self.row_sets.index(names) for _, names in self.sets], dtype=np.uint8)
        return row_of[np.searchsorted(self.values, raw)]

    def values_to_write(self) -> dict[str, int]:
        """Class -> raw value to write for it: the smallest that stands for this class alone.

        Negative values come last, since predictions are written unsigned if possible. Where
        no value stands for a class alone, the background is 0, and another class gets a new
        value above all others, which no set has.
        """
        chosen: dict[str, int] = {}
        for value, names in sorted(self.sets, key=lambda row: (row[0] < 0, row[0])):
            if len(names) == 1:
                chosen.setdefault(next(iter(names)), value)
        chosen.setdefault(BACKGROUND, 0)
        unused = int(self.values.max()) + 1
        for name in self.space.names:
            if name not in chosen:
                chosen[name], unused = unused, unused + 1
        return {name: chosen[name] for name in self.space.names}


def ordered_union(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Names in the order of their first appearance, each once."""
    return tuple(dict.fromkeys(name for group in groups for name in group))
