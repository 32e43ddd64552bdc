"""From the label names of dataset YAMLs to the model's classes and to sets of them.

A name is a class of the model unless something finer is known for it: it is declared
under `label_sets`, HSF's `ca_type` says what it stands for, or it is a name with slashes
whose parts other datasets draw apart (`CA2/3` beside CA2 and CA3).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hsf_finetune.config.settings import DatasetSettings, DatasetsSettings, ModelSettings
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap, ordered_union
from hsf_finetune.system.errors import ConfigError

FOREGROUND = "foreground"
"""In `label_sets`: every class but the background."""

_MERGED = {"1/2/3": (), "1/23": ("CA2", "CA3"), "123": ("CA1", "CA2", "CA3")}
"""What each `ca_type` draws as one label."""
_TAIL = ("CA1", "SUB", "DG")
_MERGED_DIGITS = {"1/23": ("23",), "123": ("", "123", "13")}


def class_space(datasets: DatasetsSettings, models: ModelSettings) -> ClassSpace:
    """The model's classes: `models.labels_names`, or the datasets' finest names.

    A dataset's name counts unless it is a set there. Of names that say the same region
    in different detail (CA1/2/3; CA1 and CA2/3; CA1, CA2 and CA3) the finest count, if
    they cover the coarser one. Classes come in the order of the label numbers, those of
    the dataset with the most of them first.

    Raises:
        ConfigError: names overlap without one being finer, a name is a set in one
            dataset and a class in another, or a setting names a class that is not there.
    """
    if models.labels_names is not None:
        names: Sequence[str] = [name for name in models.labels_names if name != BACKGROUND]
    else:
        names = _finest(datasets)
    if not names:
        raise _no_classes(datasets)
    space = ClassSpace((BACKGROUND, *names))
    for setting, named in (
        ("models.class_weights", models.class_weights or {}),
        ("datasets.allow_unsupervised", datasets.allow_unsupervised),
    ):
        for name in named:
            if name not in space.names:
                raise ConfigError(
                    f"{setting} names '{name}', which is no class of the model",
                    expected=", ".join(space.names),
                )
    return space


def label_map(name: str, dataset: DatasetSettings, space: ClassSpace) -> LabelMap:
    """What a dataset's label values mean, in the model's classes.

    Args:
        name: of the dataset, for messages.
        dataset: its description.
        space: the model's classes.

    Raises:
        ConfigError: a label number has no name, or a name is neither a class nor a set.
    """
    numbers = dataset.labels or {number: number for number in dataset.labels_names}
    names = {**dataset.labels_names, 0: BACKGROUND}
    unnamed = sorted({number for number in numbers.values() if number not in names})
    if unnamed:
        raise ConfigError(
            "label numbers without a name",
            found=unnamed,
            expected=f"one of {sorted(names)}",
            fix="add them to labels_names, or map them to 0 (background) under labels",
        )
    _check_keys(name, dataset, space, numbers)
    meaning = _Meaning(name, dataset, space)
    background = frozenset({BACKGROUND}).union(*map(meaning.of, dataset.unannotated))
    sets = {0: background}
    titles: dict[frozenset[str], str] = {}
    for value, number in numbers.items():
        title = names[number]
        sets[value] = background if title == BACKGROUND else meaning.of(title)
        if len(sets[value]) > 1 and title != BACKGROUND:
            titles.setdefault(sets[value], title)
    sets |= {value: frozenset(space.names) for value in dataset.ignore}
    return LabelMap.from_sets(space, sets, titles)


def refuse_sets(maps: Mapping[str, LabelMap]) -> None:
    """Refuses protocols in which a value stands for several classes.

    Args:
        maps: dataset -> what its values mean.

    Raises:
        ConfigError: there is such a value, and `models.use_forgiving_loss` is off.
    """
    found = []
    for name, protocol in maps.items():
        for title, members in zip(protocol.row_names, protocol.row_sets, strict=True):
            if len(members) == len(protocol.space):
                found.append(f"dataset '{name}': values that say nothing (ignore)")
            elif len(members) > 1:
                inside = ", ".join(c for c in protocol.space.names if c in members)
                found.append(f"dataset '{name}': {title} may be {inside}")
    if found:
        raise ConfigError(
            "label values stand for several classes, which models.use_forgiving_loss=False "
            "does not allow",
            found="\n".join(found),
            fix="models.use_forgiving_loss=True;\nor, for a name that is to be a class of its "
            "own, list it with the other classes in models.labels_names",
        )


def parts_of(name: str, ca_type: str | None = None) -> tuple[str, ...]:
    """The regions that a name lists: `CA2/3` -> CA2, CA3; `L_CA1/2` -> L_CA1, L_CA2.

    A part that starts with a digit takes the letters of the part before it, and what
    follows the last digit belongs to all (`CA2/3_left`). With a `ca_type`, CA, CA23,
    CA2-3, CA1-3 and the like are read as that protocol merges them.
    """
    digits = "".join(re.findall(r"\d", name))
    if re.fullmatch(r"CA[\dCA\-+_&,. ]*", name) and digits in _MERGED_DIGITS.get(ca_type or "", ()):
        return _MERGED[ca_type or ""]
    found: list[str] = []
    for piece in name.split("/"):
        if found and piece[:1].isdigit():
            piece = re.sub(r"\d+$", "", found[-1]) + piece
        found.append(piece)
    suffix = re.search(r"/\d+(\D+)$", name)
    if suffix:
        found = [part + suffix[1] if part[-1:].isdigit() else part for part in found]
    return tuple(found)


# -------------------------------------------------------------------- internals
def _is_marker(name: str, dataset: DatasetSettings) -> bool:
    """Whether a name is one of those that HSF uses for undivided ends."""
    return dataset.ca_type is not None and name in ("HEAD", "TAIL")


def _drawn(dataset: DatasetSettings) -> list[str]:
    """The names of a dataset in the order of their numbers, without the background."""
    named = dataset.labels_names
    return [named[k] for k in sorted(named) if k != 0 and named[k] != BACKGROUND]


def _own_classes(dataset: DatasetSettings) -> list[str]:
    """The names that may be classes: no marker, and no set unless it holds itself."""
    return [
        name
        for name in _drawn(dataset)
        if not _is_marker(name, dataset)
        and (name not in dataset.label_sets or name in _members(dataset.label_sets[name]))
    ]


def _finest(datasets: DatasetsSettings) -> list[str]:
    """The names of all datasets that are classes."""
    own = {name: _own_classes(dataset) for name, dataset in datasets.datasets.items()}
    names = ordered_union(own.values())
    parts: dict[str, frozenset[str]] = {}
    for name, dataset in datasets.datasets.items():
        for title in own[name]:
            read = frozenset(parts_of(title, dataset.ca_type))
            parts[title] = max(parts.get(title, read), read, key=len)
    finest = [
        name
        for name in names
        if parts[name] != frozenset().union(*(p for p in parts.values() if p < parts[name]))
    ]
    _check_overlaps(finest, parts, own)
    for cohort, dataset in datasets.datasets.items():
        both = [n for n in finest if n in dataset.label_sets and n not in own[cohort]]
        if both:
            others = [other for other, found in own.items() if both[0] in found]
            raise ConfigError(
                f"'{both[0]}' is a set in dataset '{cohort}' and a class in '{others[0]}'",
                fix=f"declare it under label_sets of '{others[0]}' too;\nor list it in its own "
                f"set, {both[0]}: [{both[0]}, ...]; or rename it in one of them",
            )
    by_detail = sorted(own.values(), key=lambda found: -len({*found} & {*finest}))
    return [name for name in ordered_union(by_detail) if name in finest]


def _no_classes(datasets: DatasetsSettings) -> ConfigError:
    declared = [d.label_sets.values() for d in datasets.datasets.values()]
    members = ordered_union(_members(given) for one in declared for given in one)
    named = [name for name in members if name not in (FOREGROUND, BACKGROUND)]
    return ConfigError(
        "the labels' names do not say which classes the model has",
        found=", ".join(name for d in datasets.datasets.values() for name in _drawn(d)) or "none",
        fix=f"models.labels_names=[{', '.join(named) or 'CA1, CA2, ...'}]",
    )


def _check_overlaps(
    finest: Sequence[str], parts: Mapping[str, frozenset[str]], own: Mapping[str, Sequence[str]]
) -> None:
    """Refuses classes that share a region, unless one dataset draws them side by side."""
    for number, one in enumerate(finest):
        for other in finest[number + 1 :]:
            together = any(one in found and other in found for found in own.values())
            if parts[one] & parts[other] and not together:
                atoms = [a for name in finest for a in sorted(parts[name])]
                raise ConfigError(
                    f"'{one}' and '{other}' overlap, and neither is made of the other's parts",
                    found=", ".join(finest),
                    fix=f"say which classes the model has: models.labels_names="
                    f"[{', '.join(dict.fromkeys(atoms))}]",
                )


def _check_keys(
    name: str, dataset: DatasetSettings, space: ClassSpace, numbers: Mapping[int, int]
) -> None:
    """Refuses declarations that nothing uses, and names that contradict `ca_type`."""
    used = {*_drawn(dataset), *dataset.unannotated}
    used |= {member for given in dataset.label_sets.values() for member in _members(given)}
    for key in dataset.label_sets:
        if key not in used:
            close = difflib.get_close_matches(key, used, n=1)
            raise ConfigError(
                f"label_sets of dataset '{name}' declares '{key}', which no label is called",
                expected=", ".join(_drawn(dataset)),
                fix=f"did you mean '{close[0]}'?" if close else None,
            )
    twice = sorted({*dataset.ignore} & {*numbers})
    if twice:
        raise ConfigError(
            f"dataset '{name}' both ignores label values and says what they mean",
            found=", ".join(map(str, twice)),
            fix="leave them out of ignore, or out of labels (or labels_names)",
        )
    merged = _MERGED.get(dataset.ca_type or "", ())
    alone = [n for n in _drawn(dataset) if n in merged and n not in dataset.label_sets]
    if alone:
        raise ConfigError(
            f"ca_type '{dataset.ca_type}' of dataset '{name}' says that {' and '.join(merged)} "
            "are one label",
            found=f"a label called {alone[0]}",
            fix=f"call the merged label CA{'/'.join(m[2:] for m in merged)}, or give another "
            "ca_type (1/2/3, 1/23, 123, or null)",
        )


def _members(given: Sequence[str] | str) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


@dataclass(frozen=True)
class _Meaning:
    """What the names of one dataset stand for."""

    name: str
    dataset: DatasetSettings
    space: ClassSpace

    def of(self, title: str, within: tuple[str, ...] = ()) -> frozenset[str]:
        """The classes that a name stands for; `within` are the sets being resolved."""
        declared = self.dataset.label_sets.get(title)
        if declared is not None and title not in within:
            inside = (*within, title)
            return frozenset().union(*(self.of(m, inside) for m in _members(declared)))
        if title in self.space.names:
            return frozenset({title})
        everything = title == FOREGROUND if within else _is_marker(title, self.dataset)
        if everything and title != "TAIL":
            return frozenset(self.space.foreground)
        found = self._made_of(title)
        if not found:
            raise self._unknown(title)
        return found

    def _made_of(self, title: str) -> frozenset[str]:
        """The classes that together are what a name lists; nothing if there are none."""
        ca_type = self.dataset.ca_type
        parts = {c: frozenset(parts_of(c, ca_type)) for c in self.space.foreground}
        if _is_marker(title, self.dataset):
            return frozenset(c for c, own in parts.items() if own & {*_TAIL})
        wanted = frozenset(parts_of(title, ca_type))
        inside = {c: own for c, own in parts.items() if own <= wanted}
        covered: Iterable[str] = frozenset().union(*inside.values())
        return frozenset(inside) if covered == wanted else frozenset()

    def _unknown(self, title: str) -> ConfigError:
        known = [*self.space.foreground, *self.dataset.label_sets]
        close = difflib.get_close_matches(title, known, n=1)
        hint = f"did you mean '{close[0]}'?\n" if close else ""
        return ConfigError(
            f"dataset '{self.name}' names '{title}', which is neither a class of the model nor "
            "a set of them",
            expected=", ".join(self.space.foreground),
            fix=f"{hint}say what it stands for, label_sets: {{{title}: "
            f"[{', '.join(self.space.foreground[:2])}]}};\nor make it a class: models.labels_names="
            f"[{', '.join((*self.space.foreground, title))}]",
        )
