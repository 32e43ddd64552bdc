"""Names that are probably meant as one class, or as a set, and are classes of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hsf_finetune.config.settings import DatasetSettings, ModelSettings
from hsf_finetune.labels.classes import ClassSpace
from hsf_finetune.labels.laterality import without_side
from hsf_finetune.labels.protocols import merged_subfields, split_name


def warn_similar_names(
    datasets: Mapping[str, DatasetSettings], models: ModelSettings, classes: ClassSpace
) -> list[str]:
    """Warnings about classes whose names mean the same; none if `models.labels_names` lists them.

    Names are compared without case, blanks and separators, and with their sides in any spelling.
    """
    if models.labels_names is not None:
        return []
    return [*_equal_names(classes), *_ca_names(classes), *_hsf_names(datasets, classes)]


def _equal_names(classes: ClassSpace) -> list[str]:
    groups: dict[tuple[str, str | None], list[str]] = {}
    for name in classes.foreground:
        groups.setdefault(_key(name), []).append(name)
    return [
        f"{' and '.join(names)} are classes of their own, although their names differ in case, "
        f"blanks or separators only (if they are one, label_sets: {{{names[1]}: [{names[0]}]}} in "
        f"the dataset that has {names[1]})"
        for names in groups.values()
        if len(names) > 1
    ]


def _ca_names(classes: ClassSpace) -> list[str]:
    """CA23 beside CA2 and CA3."""
    found = []
    for name in classes.foreground:
        key, side = _key(name)
        parts = [(f"ca{digit}", side) for digit in key[2:]]
        members = [other for other in classes.foreground if _key(other) in parts]
        if re.fullmatch(r"ca\d\d+", key) and len(members) == len(parts):
            found.append(
                f"{name} is a class of its own beside {' and '.join(members)} (if it is their "
                f"union, label_sets: {{{name}: [{', '.join(members)}]}})"
            )
    return found


def _hsf_names(datasets: Mapping[str, DatasetSettings], classes: ClassSpace) -> list[str]:
    """R_HEAD, head or L_CA under a `ca_type`, whose rules have HEAD and CA."""
    found = []
    for dataset, described in datasets.items():
        for name in described.labels_names.values() if described.ca_type else ():
            if name not in classes.foreground or name in described.label_sets:
                continue
            base, side = without_side(name)
            plain = re.sub(r"^[\W_]+|[\W_]+$", "", base).upper()
            if plain not in ("HEAD", "TAIL") and not merged_subfields(plain, described.ca_type):
                continue
            if (plain, side) != (name, None):
                others = [c for c in classes.foreground if c != name and without_side(c)[1] == side]
                found.append(
                    f"{name} of dataset '{dataset}' is a class of its own, although "
                    f"ca_type: {described.ca_type} makes {plain} a set of classes (if it is one, "
                    f"label_sets: {{{name}: [{', '.join(others)}]}}, as far as they belong to it)"
                )
    return found


def _key(name: str) -> tuple[str, str | None]:
    """What a name means: its letters and digits (ca23 for CA2/3 and CA2/CA3), and its side."""
    base, side = without_side(name)
    first, *others = split_name(base)
    letters = re.sub(r"\d+$", "", first)
    short = first + "".join(part.removeprefix(letters) for part in others)
    return re.sub(r"[\W_]+", "", short).casefold(), side
