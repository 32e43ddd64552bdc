"""Cohorts on disk in several protocols, for label_sets.py: MSD's hippocampi, or phantoms.

Each cohort is a folder of images and of label files that hold no more than its protocol
draws. Seeds train on other cases, as far as there are.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.phantom.phantom_image import make_phantom
from hsf_finetune.data.phantom.phantom_protocol import PROTOCOLS, AnnotationProtocol, ProtocolRule
from hsf_finetune.data.phantom.phantom_shape import SUBFIELDS

FINEST = "finest"
"""The cohort that draws every class by itself, which every arm trains on and is scored in."""


@dataclass(frozen=True)
class Drawn:
    """A cohort in one protocol.

    Args:
        names: label value -> name of a class or of a set.
        pool: stems of the cases that may train.
        number: how many of them train with one seed.
        sets: name -> the classes that it stands for.
        unannotated: classes that are not drawn.
    """

    names: Mapping[int, str]
    pool: tuple[str, ...]
    number: int
    sets: Mapping[str, list[str] | str] = field(default_factory=dict)
    unannotated: tuple[str, ...] = ()

    def taken(self, seed: int) -> list[str]:
        """The cases that train with a seed."""
        first = seed * self.number % len(self.pool)
        return [*self.pool, *self.pool][first : first + self.number]

    def described(self, folder: Path, weight: float | None = None) -> DatasetSettings:
        """The cohort as a dataset of the configuration."""
        return DatasetSettings.model_validate(
            {
                "path": str(folder),
                "patterns": {
                    "volumes": {"mri": "images/*.nii.gz", "label": "labels/*.nii.gz"},
                },
                "labels_names": dict(self.names),
                "label_sets": dict(self.sets),
                "unannotated": list(self.unannotated),
                "weight": weight,
            }
        )


@dataclass(frozen=True)
class Part:
    """What is trained and scored.

    Args:
        title: of the table.
        root: the cohorts' folders.
        cohorts: name -> cohort.
        arms: name -> the cohorts that it trains on; the first is what others are compared with.
        validation: cases of the finest cohort that validate.
        scored: cases of the finest cohort that are scored.
        even: arms that draw all cases alike, and not half of them of the finest cohort.
    """

    title: str
    root: Path
    cohorts: Mapping[str, Drawn]
    arms: Mapping[str, tuple[str, ...]]
    validation: tuple[str, ...]
    scored: tuple[str, ...]
    even: tuple[str, ...] = ()

    def datasets(self, arm: str) -> dict[str, DatasetSettings]:
        """The datasets of an arm."""
        weight = 1.0 if arm in self.even else None
        return {
            name: self.cohorts[name].described(self.root / name, weight) for name in self.arms[arm]
        }


# -------------------------------------------------------------------------------- MSD
def msd(options: argparse.Namespace, split: Mapping[str, Sequence[str]], work: Path) -> Part:
    """Eight subjects drawn in anterior and posterior, and 32 that say less."""
    few, many = tuple(split["finetune"]), tuple(split["pretrain"])
    two, one = {1: "anterior", 2: "posterior"}, {1: "anterior"}
    whole = {"hippocampus": ["anterior", "posterior"]}
    cohorts = {
        FINEST: Drawn(two, few, 8),
        "merged": Drawn({1: "hippocampus"}, many, 32, whole),
        "merged_as_anterior": Drawn(one, many, 32),
        "unannotated": Drawn(one, many, 32, unannotated=("posterior",)),
        "unannotated_as_background": Drawn(one, many, 32),
        "drawn_apart": Drawn(two, many, 32),
    }
    merge, leave_out, keep = {1: 1, 2: 1}, {1: 1, 2: 0}, {1: 1, 2: 2}
    written = dict(zip(cohorts, (keep, merge, merge, leave_out, leave_out, keep), strict=True))
    root = work / "msd"
    validation, scored = tuple(split["validation"]), tuple(split[options.score_on])
    for name, cohort in cohorts.items():
        others = {*validation, *scored} if name == FINEST else set()
        for stem in sorted({*cohort.pool, *others}):
            _write_msd(options.data.resolve(), root / name, stem, written[name])
    arms = {FINEST: (FINEST,), **{n: (FINEST, n) for n in cohorts if n != FINEST}}
    arms["merged_evenly"] = arms["merged"]
    even = ("merged_evenly",)
    return Part("MSD hippocampus", root, cohorts, arms, validation, scored, even)


def _write_msd(data: Path, folder: Path, stem: str, values: Mapping[int, int]) -> None:
    image, label = (folder / kind / f"{stem}.nii.gz" for kind in ("images", "labels"))
    if label.exists():
        return
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        image.symlink_to(data / "imagesTr" / image.name)
    drawn: Any = nib.load(data / "labelsTr" / label.name)
    raw = np.asarray(drawn.dataobj)
    kept = np.zeros(raw.shape, np.uint8)
    for value, other in values.items():
        kept[raw == value] = other
    nib.save(nib.Nifti1Image(kept, drawn.affine, _without_type(drawn.header)), label)


def _without_type(header: Any) -> Any:
    """A header with the same geometry, for integers as they are."""
    header = header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    return header


# --------------------------------------------------------------------------- phantoms
SHAPE_VOX, SPACING_MM = (40, 56, 40), 0.8
SUBICULUM = ["SUB", "PRESUB", "PARASUB"]
TAIL = ProtocolRule(8, "TAIL", tuple(SUBFIELDS), (0.0, 0.25))
HEAD = ProtocolRule(9, "HEAD", tuple(SUBFIELDS), (0.7, 1.0))
FIRST = {"validation": 1000, "held": 2000, "test": 3000}
"""Number of the first person; training persons count from 0."""
SEEDS = 3
"""For so many seeds there are persons that no other seed trains on."""


def phantom(options: argparse.Namespace, split: Mapping[str, Sequence[str]], work: Path) -> Part:
    """Four persons in the finest of four protocols, and eight in each of the others."""
    sub = ProtocolRule(5, "SUB", tuple(SUBICULUM))
    dg, *ca = PROTOCOLS["fine"].rules[:4]
    rules = {
        "merged_23": (dg, ca[0], ProtocolRule(3, "CA2/3", ("CA2", "CA3")), sub),
        "merged_123_tail": (dg, ProtocolRule(2, "CA1/2/3", ("CA1", "CA2", "CA3")), sub, TAIL),
        "head_and_tail": (dg, *ca, sub, HEAD, TAIL),
    }
    protocols = {name: AnnotationProtocol(given) for name, given in rules.items()}
    sets: dict[str, list[str] | str] = {"SUB": SUBICULUM}
    cohorts = {FINEST: Drawn(PROTOCOLS["fine"].labels_names, _persons(0, 4 * SEEDS), 4)}
    for number, (name, protocol) in enumerate(protocols.items(), start=1):
        ends = {n: "foreground" for n in ("TAIL", "HEAD") if n in protocol.labels_names.values()}
        persons = _persons(100 * number, 8 * SEEDS)
        cohorts[name] = Drawn(protocol.labels_names, persons, 8, {**sets, **ends})
    same = [p for seed in range(SEEDS) for name in protocols for p in cohorts[name].taken(seed)]
    cohorts["drawn_finest"] = Drawn(PROTOCOLS["fine"].labels_names, tuple(same), 24)
    root = work / "phantom"
    validation, scored = _persons(FIRST["validation"], 4), _persons(FIRST[options.score_on], 20)
    for name, cohort in cohorts.items():
        others = {*validation, *scored} if name == FINEST else set()
        for stem in sorted({*cohort.pool, *others}):
            _write_phantom(root / name, stem, protocols.get(name, PROTOCOLS["fine"]))
    arms = {
        FINEST: (FINEST,),
        "four_protocols": (FINEST, *protocols),
        "four_evenly": (FINEST, *protocols),
        "drawn_finest": (FINEST, "drawn_finest"),
    }
    even = ("four_evenly",)
    return Part("Phantoms in four protocols", root, cohorts, arms, validation, scored, even)


def _persons(first: int, number: int) -> tuple[str, ...]:
    return tuple(f"person_{first + k:04d}" for k in range(number))


def _write_phantom(folder: Path, stem: str, protocol: AnnotationProtocol) -> None:
    image, label = (folder / kind / f"{stem}.nii.gz" for kind in ("images", "labels"))
    if label.exists():
        return
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    made = make_phantom(0, int(stem.rsplit("_", 1)[-1]), "left", "T2w", SHAPE_VOX, SPACING_MM)
    drawn = protocol.encode(made.subfields, made.axis_position)
    nib.save(nib.Nifti1Image(made.image, made.affine), image)
    nib.save(nib.Nifti1Image(drawn, made.affine), label)
