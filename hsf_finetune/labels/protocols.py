"""From the label names of dataset YAMLs to the model's classes and to sets of them.

A name is a class of the model unless it is known to be a set: it is declared under
`label_sets`, HSF's `ca_type` defines it, or it lists with slashes what other datasets
label separately (`CA2/3` where others have CA2 and CA3).
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
"""`ca_type` -> the subfields that it labels as one."""
_MERGED_DIGITS = {"1/23": ("23",), "123": ("", "123", "13")}
"""`ca_type` -> the digits in the names of this label."""
_CORNU_AMMONIS = re.compile(r"CA[\dCA\-+_&,. ]*")
_TAIL = frozenset({"CA1", "SUB", "DG"})
"""What HSF's label TAIL may be."""


def find_classes(datasets: DatasetsSettings, models: ModelSettings) -> ClassSpace:
    """The model's classes: `models.labels_names`, or the finest names of the datasets.

    A dataset's name counts unless it is a set in this dataset. Of names for the same region
    in different detail (CA1/2/3; CA1 and CA2/3; CA1, CA2 and CA3) the finest count, if
    they cover the coarser one. Classes come in the order of the label numbers, those of
    the dataset with the most of them first.

    Raises:
        ConfigError: names overlap without one being finer, a name is a set in one
            dataset and a class in another, or a setting names an unknown class.
    """
    if models.labels_names is not None:
        names: Sequence[str] = [name for name in models.labels_names if name != BACKGROUND]
    else:
        names = _finest_names(datasets)
    if not names:
        raise _no_classes_error(datasets)
    space = ClassSpace((BACKGROUND, *names))
    for setting, used in (
        ("models.class_weights", models.class_weights or {}),
        ("datasets.allow_unsupervised", datasets.allow_unsupervised),
    ):
        for name in used:
            if name not in space.names:
                raise ConfigError(
                    f"{setting} names '{name}', which is no class of the model",
                    expected=", ".join(space.names),
                )
    return space


def read_label_map(name: str, dataset: DatasetSettings, space: ClassSpace) -> LabelMap:
    """The classes that each label value of a dataset stands for.

    Args:
        name: of the dataset, for messages.
        dataset: its description.
        space: the model's classes.

    Raises:
        ConfigError: a label number has no name, a name is neither a class nor a set, or a class
            is both drawn and unannotated.
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
    _check_declarations(name, dataset, numbers)
    reader = _NameReader(name, dataset, space)
    unannotated: frozenset[str] = frozenset().union(*map(reader.classes_of, dataset.unannotated))
    background = unannotated | {BACKGROUND}
    sets = {0: background}
    titles: dict[frozenset[str], str] = {}
    for value, number in numbers.items():
        title = names[number]
        sets[value] = background if title == BACKGROUND else reader.classes_of(title)
        if sets[value] <= unannotated:
            raise ConfigError(
                f"dataset '{name}' draws {title} and lists it under unannotated",
                found="its background could be that class everywhere, so that a model which finds "
                "it everywhere would be right",
                fix=f"take {title} out of unannotated;\nor, if it is drawn in a part of the scan "
                "only, give the voxels that nobody looked at a value of their own and list that "
                "under ignore",
            )
        if len(sets[value]) > 1 and title != BACKGROUND:
            titles.setdefault(sets[value], title)
    sets |= {value: frozenset(space.names) for value in dataset.ignore}
    return LabelMap.from_sets(space, sets, titles)


def refuse_sets(maps: Mapping[str, LabelMap]) -> None:
    """Refuses label values that stand for several classes.

    Args:
        maps: dataset -> its label map.

    Raises:
        ConfigError: there is such a value, and `models.use_forgiving_loss` is off.
    """
    found = []
    for name, protocol in maps.items():
        for title, members in zip(protocol.row_names, protocol.row_sets, strict=True):
            if len(members) == len(protocol.space):
                found.append(f"dataset '{name}': values without information (ignore)")
            elif len(members) > 1:
                listed = ", ".join(c for c in protocol.space.names if c in members)
                found.append(f"dataset '{name}': {title} may be {listed}")
    if found:
        raise ConfigError(
            "label values stand for several classes, which models.use_forgiving_loss=False "
            "does not allow",
            found="\n".join(found),
            fix="models.use_forgiving_loss=True;\nor, to make such a name a class of its own, "
            "list it with the other classes in models.labels_names",
        )


def split_name(name: str, ca_type: str | None = None) -> tuple[str, ...]:
    """The regions that a name lists: `CA2/3` -> CA2, CA3; `L_CA1/2` -> L_CA1, L_CA2.

    A part that starts with a digit takes the letters of the part before it, and what
    follows the last digit belongs to all (`CA2/3_left`). With a `ca_type`, CA, CA23,
    CA2-3, CA1-3 and the like are read as that protocol merges them.
    """
    if merged := merged_subfields(name, ca_type):
        return merged
    parts: list[str] = []
    for part in name.split("/"):
        if parts and part[:1].isdigit():
            part = re.sub(r"\d+$", "", parts[-1]) + part
        parts.append(part)
    suffix = re.search(r"/\d+(\D+)$", name)
    if suffix:
        parts = [part + suffix[1] if part[-1:].isdigit() else part for part in parts]
    return tuple(parts)


def merged_subfields(name: str, ca_type: str | None) -> tuple[str, ...]:
    """The subfields of a name such as CA or CA23, if it is one that the `ca_type` merges."""
    digits = "".join(re.findall(r"\d", name))
    is_merged = digits in _MERGED_DIGITS.get(ca_type or "", ())
    return _MERGED[ca_type or ""] if is_merged and _CORNU_AMMONIS.fullmatch(name) else ()


def _is_hsf_marker(name: str, dataset: DatasetSettings) -> bool:
    """Whether a name is one of those that HSF uses for undivided ends."""
    return dataset.ca_type is not None and name in ("HEAD", "TAIL")


def _label_names(dataset: DatasetSettings) -> list[str]:
    """The names of a dataset in the order of their numbers, without the background."""
    names = dataset.labels_names
    return [names[k] for k in sorted(names) if k != 0 and names[k] != BACKGROUND]


def _possible_classes(dataset: DatasetSettings) -> list[str]:
    """The names that may be classes: no HSF marker, and no set unless it contains itself."""
    return [
        name
        for name in _label_names(dataset)
        if not _is_hsf_marker(name, dataset)
        and (name not in dataset.label_sets or name in _as_list(dataset.label_sets[name]))
    ]


def _finest_names(datasets: DatasetsSettings) -> list[str]:
    """The names of all datasets that are classes."""
    possible = {name: _possible_classes(dataset) for name, dataset in datasets.datasets.items()}
    parts: dict[str, frozenset[str]] = {}
    for name, dataset in datasets.datasets.items():
        for title in possible[name]:
            regions = frozenset(split_name(title, dataset.ca_type))
            parts[title] = max(parts.get(title, regions), regions, key=len)
    # CA2/3 is CA2/CA3: what lists the same regions is one class, called as it is called first.
    first = {parts[title]: title for title in reversed(ordered_union(possible.values()))}
    possible = {name: [first[parts[t]] for t in titles] for name, titles in possible.items()}
    finest = [
        name
        for name in ordered_union(possible.values())
        if parts[name] != frozenset().union(*(p for p in parts.values() if p < parts[name]))
    ]
    _check_overlaps(finest, parts, possible)
    for name, dataset in datasets.datasets.items():
        both = [n for n in finest if n in dataset.label_sets and n not in possible[name]]
        if both:
            others = [other for other, found in possible.items() if both[0] in found]
            raise ConfigError(
                f"'{both[0]}' is a set in dataset '{name}' and a class in '{others[0]}'",
                fix=f"declare it under label_sets of '{others[0]}' too;\nor list it in its own "
                f"set, {both[0]}: [{both[0]}, ...]; or rename it in one of them",
            )
    by_detail = sorted(possible.values(), key=lambda found: -len({*found} & {*finest}))
    return [name for name in ordered_union(by_detail) if name in finest]


def _no_classes_error(datasets: DatasetsSettings) -> ConfigError:
    described = datasets.datasets.values()
    members = ordered_union(_as_list(given) for d in described for given in d.label_sets.values())
    names = [name for name in members if name not in (FOREGROUND, BACKGROUND)]
    return ConfigError(
        "the classes of the model do not follow from the labels' names",
        found=", ".join(name for d in described for name in _label_names(d)) or "no names",
        fix=f"models.labels_names=[{', '.join(names) or 'CA1, CA2, ...'}]",
    )


def _check_overlaps(
    finest: Sequence[str],
    parts: Mapping[str, frozenset[str]],
    possible: Mapping[str, Sequence[str]],
) -> None:
    """Refuses classes that share a region, unless one dataset has both of them."""
    for number, one in enumerate(finest):
        for other in finest[number + 1 :]:
            together = any(one in found and other in found for found in possible.values())
            if parts[one] & parts[other] and not together:
                regions = [region for name in finest for region in sorted(parts[name])]
                raise ConfigError(
                    f"'{one}' and '{other}' overlap, and neither consists of the other's parts",
                    found=", ".join(finest),
                    fix="name the classes of the model: models.labels_names="
                    f"[{', '.join(dict.fromkeys(regions))}]",
                )


def _check_declarations(name: str, dataset: DatasetSettings, numbers: Mapping[int, int]) -> None:
    """Refuses declarations that nothing uses, and names that contradict `ca_type`."""
    used = {*_label_names(dataset), *dataset.unannotated}
    used |= {member for given in dataset.label_sets.values() for member in _as_list(given)}
    for key in dataset.label_sets:
        if key not in used:
            close = difflib.get_close_matches(key, used, n=1)
            raise ConfigError(
                f"label_sets of dataset '{name}' declares '{key}', which no label is called",
                expected=", ".join(_label_names(dataset)),
                fix=f"did you mean '{close[0]}'?" if close else None,
            )
    twice = sorted({*dataset.ignore} & {*numbers})
    if twice:
        raise ConfigError(
            f"dataset '{name}' both ignores label values and gives them a meaning",
            found=", ".join(map(str, twice)),
            fix="leave them out of ignore, or out of labels (or labels_names)",
        )
    merged = _MERGED.get(dataset.ca_type or "", ())
    single = [n for n in _label_names(dataset) if n in merged and n not in dataset.label_sets]
    if single:
        raise ConfigError(
            f"with ca_type '{dataset.ca_type}' of dataset '{name}', {' and '.join(merged)} "
            "are one label",
            found=f"a label called {single[0]}",
            fix=f"call the merged label CA{'/'.join(m[2:] for m in merged)}, or give another "
            "ca_type (1/2/3, 1/23, 123, or null)",
        )


def _as_list(given: Sequence[str] | str) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


@dataclass(frozen=True)
class _NameReader:
    """Reads which classes the names of one dataset stand for."""

    name: str
    dataset: DatasetSettings
    space: ClassSpace

    def classes_of(self, title: str, resolving: tuple[str, ...] = ()) -> frozenset[str]:
        """The classes that a name stands for; `resolving` are the sets that led to it."""
        declared = self.dataset.label_sets.get(title)
        if declared is not None and title not in resolving:
            path = (*resolving, title)
            return frozenset().union(*(self.classes_of(m, path) for m in _as_list(declared)))
        if title in self.space.names:
            return frozenset({title})
        is_head = title == "HEAD" and _is_hsf_marker(title, self.dataset)
        if is_head or (resolving and title == FOREGROUND):
            return frozenset(self.space.foreground)
        found = self._classes_in(title)
        if not found:
            raise self._unknown_name_error(title)
        return found

    def _classes_in(self, title: str) -> frozenset[str]:
        """The classes that together are what a name lists; empty if there are none."""
        ca_type = self.dataset.ca_type
        parts = {c: frozenset(split_name(c, ca_type)) for c in self.space.foreground}
        if _is_hsf_marker(title, self.dataset):
            return frozenset(c for c, regions in parts.items() if regions & _TAIL)
        wanted = frozenset(split_name(title, ca_type))
        inside = {c: regions for c, regions in parts.items() if regions <= wanted}
        covered: Iterable[str] = frozenset().union(*inside.values())
        return frozenset(inside) if covered == wanted else frozenset()

    def _unknown_name_error(self, title: str) -> ConfigError:
        known = [*self.space.foreground, *self.dataset.label_sets]
        close = difflib.get_close_matches(title, known, n=1)
        hint = f"did you mean '{close[0]}'?\n" if close else ""
        return ConfigError(
            f"dataset '{self.name}' names '{title}', which is neither a class of the model nor "
            "a set of them",
            expected=", ".join(self.space.foreground),
            fix=f"{hint}declare what it stands for, label_sets: {{{title}: "
            f"[{', '.join(self.space.foreground[:2])}]}};\nor make it a class: models.labels_names="
            f"[{', '.join((*self.space.foreground, title))}]",
        )
