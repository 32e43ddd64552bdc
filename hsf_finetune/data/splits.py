"""Splits of cases into training, validation and test: by subject, seeded, saved."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.data.volumes.read_volume import stem
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, DataError

SIDES = ("train", "validation", "test")
ALSO_TRAINED = "which also trained"
"""Said of cases that score a model and trained it, too."""


SOURCE_TRAINED = "source_trained"
"""Key of `splits.json`: cases that score a model, and that its source model trained on."""
OF_SOURCE = " the pretrained model"
"""Said after `ALSO_TRAINED` of these."""


def note_trained(trained: int, count: int, model: str = "") -> str:
    """How many of some scored cases trained the model, as the end of a phrase; empty for none.

    Args:
        trained: those that did.
        count: of all.
        model: `OF_SOURCE` for the pretrained model.
    """
    if not trained:
        return ""
    text = f"{ALSO_TRAINED}{model}"
    return f", {text}" if trained >= count else f", {trained} of {text}"


@dataclass(frozen=True)
class Split:
    """Cases by side; a subject's cases are all on one side.

    Args:
        train: cases that weights are fitted to.
        validation: cases that decide on the best epoch.
        test: cases that are only scored after training; may be empty.
        how: one sentence on how the split was made.
        held_out: False where validation cases train as well.
        source_trained: names of validation and test cases that the source model trained on.
    """

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]
    how: str
    held_out: bool = True
    source_trained: tuple[str, ...] = ()

    def side(self, name: str) -> tuple[Case, ...]:
        """The cases of `train`, `validation` or `test`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def note_source(self, name: str) -> str:
        """How many cases of a side trained the source model, as the end of a phrase."""
        cases = self.side(name)
        known = sum(case.name in self.source_trained for case in cases)
        return note_trained(known, len(cases), OF_SOURCE)

    def to_dict(self) -> dict[str, Any]:
        """The split as plain types, for `splits.json`; `split_file` reads them."""
        names = {side: [case.name for case in self.side(side)] for side in SIDES}
        subjects = {side: sorted({case.subject for case in self.side(side)}) for side in SIDES}
        known = {SOURCE_TRAINED: [*self.source_trained]} if self.source_trained else {}
        how = {"how": self.how, "held_out": self.held_out}
        return {**how, **names, "subjects": subjects, **known}


def split_cases(cases: Sequence[Case], settings: DatasetsSettings, seed: int) -> Split:
    """Splits cases by subject as the settings say.

    With `fold` at `all` or `auto` it is the single split by `train_ratio`; `fold_count` gives
    the number of folds instead. A column `split` of the datasets' tables is used with `fold`
    at `auto`.

    Raises:
        ConfigError, DataError: there are too few subjects, the fold does not exist, or a given
            split names unknown cases or divides a subject.
    """
    if settings.split_file:
        # A student of self-training has the scans as cases, and none to label.
        taught = settings.unlabelled_held_out and not settings.unlabelled
        file = Path(settings.split_file).expanduser()
        return _read_split_file(cases, file, settings.fold, people_overlap=taught)
    if settings.train_val_test_idx:
        return _split_by_indices(cases, settings.train_val_test_idx)
    if settings.fold == "auto" and not settings.train_on_all and any(c.side for c in cases):
        return _split_by_tables(cases)
    subjects = sorted({case.subject for case in cases})
    if settings.train_on_all:
        how = "train_on_all: every subject trains; validation figures are not held out"
        return Split(tuple(cases), tuple(cases), (), how, held_out=False)
    if len(subjects) < 2:
        raise DataError(
            "one subject cannot both train and validate",
            found=f"{len(cases)} cases of subject {', '.join(subjects) or 'none'}",
            fix="add a subject, set datasets.train_on_all=true (no held-out validation), or give "
            "subject: a regular expression if these are several people",
        )
    random.Random(seed).shuffle(subjects)
    if isinstance(settings.fold, int):
        return _split_by_fold(cases, subjects, settings.folds, settings.fold, seed)
    validating = validation_count(len(subjects), settings.train_ratio)
    how = (
        f"train_ratio={settings.train_ratio:g}, seed {seed}: "
        f"{count_of(len(subjects) - validating, 'subject')} for training, {validating} for validation"
    )
    if len(subjects) < settings.few_subjects:
        how += " (few subjects: datasets.fold=all gives more reliable figures)"
    return _split_by_subject(cases, set(subjects[:validating]), how)


def fold_count(cases: Sequence[Case], settings: DatasetsSettings) -> int | None:
    """Number of folds that a run makes, one after the other; None for a single split.

    `split_cases` makes the split of each, with the settings of `fold_settings`.

    Raises:
        ConfigError: a first fold is to decide about others that the run does not make.
    """
    subjects = len({case.subject for case in cases})
    names = ("split_file", "train_val_test_idx", "train_on_all")
    given = next((name for name in names if getattr(settings, name)), None)
    in_tables = any(case.side for case in cases)
    few = settings.fold == "auto" and subjects < settings.few_subjects and not in_tables
    if given or subjects < 2 or not (settings.fold == "all" or few):
        if settings.prune_below is not None:
            fold = "null" if settings.fold is None else settings.fold
            raise ConfigError(
                "datasets.prune_below is about the first of several folds, and this run makes one split",
                found=f"datasets.{given}" if given else f"datasets.fold={fold}",
                fix="datasets.fold=all, or datasets.prune_below=null",
            )
        return None
    return min(settings.folds, subjects)


def fold_settings(datasets: DatasetsSettings, fold: int, count: int) -> DatasetsSettings:
    """The `datasets` group of the fold of a number, from 0, of `count` folds.

    Folds do not measure what is forgotten of the source's task: that is of interest for the
    final model, which is used.
    """
    changed = {"fold": fold, "folds": count, "retention": {}, "prune_below": None}
    return datasets.model_copy(update=changed)


def first_fold(cases: Sequence[Case], datasets: DatasetsSettings) -> DatasetsSettings:
    """The `datasets` group of a run's first fold, or of its single split."""
    count = fold_count(cases, datasets)
    return datasets if count is None else fold_settings(datasets, 0, count)


def validation_count(subjects: int, train_ratio: float) -> int:
    """Subjects that validate: the rounded rest, but at least one, and one must train."""
    return min(max(round(subjects * (1 - train_ratio)), 1), subjects - 1)


def _split_by_fold(
    cases: Sequence[Case], subjects: Sequence[str], folds: int, fold: int, seed: int
) -> Split:
    folds = min(folds, len(subjects))
    if fold >= folds:
        raise ConfigError(
            f"datasets.fold={fold} does not exist",
            found=f"{len(subjects)} subjects in {folds} folds",
            expected=f"0 to {folds - 1}",
        )
    validating = set(subjects[fold::folds])
    shares = f"{len(validating)} of {len(subjects)} subjects for validation"
    return _split_by_subject(cases, validating, f"fold {fold} of {folds}, seed {seed}: {shares}")


def _split_by_subject(cases: Sequence[Case], validating: set[str], how: str) -> Split:
    train = tuple(case for case in cases if case.subject not in validating)
    validation = tuple(case for case in cases if case.subject in validating)
    return Split(train, validation, (), how)


def _split_by_indices(cases: Sequence[Case], indices: Sequence[Sequence[int]]) -> Split:
    if wrong := sorted({i for side in indices for i in side if not 0 <= i < len(cases)}):
        raise ConfigError(
            "train_val_test_idx names cases that do not exist",
            found=wrong,
            expected=f"0 to {len(cases) - 1}, in the order of the ledger",
        )
    sides = {side: [cases[i] for i in idx] for side, idx in zip(SIDES, indices, strict=False)}
    return _check_given_split(sides, "train_val_test_idx")


def _split_by_tables(cases: Sequence[Case]) -> Split:
    """The split that the datasets' tables give."""
    without = next((case for case in cases if case.side is None), None)
    if without is not None:
        given = next(case for case in cases if case.side)
        raise ConfigError(
            f"the table of dataset '{given.dataset}' has a column split, and dataset "
            f"'{without.dataset}' has none",
            expected="a split for every case, or for none",
            fix="give both a table with a column split;\nor datasets.fold=null for a split by "
            "train_ratio",
        )
    sides = {side: [case for case in cases if case.side == side] for side in SIDES}
    return _check_given_split(sides, "column split of the table")


def _read_split_file(
    cases: Sequence[Case],
    path: Path,
    fold: int | str | None = None,
    people_overlap: bool = False,
) -> Split:
    try:
        given = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError("the split file cannot be read", file=path, found=str(error)) from error
    of_nnunet = isinstance(given, list) and bool(given)
    if of_nnunet:
        given = _fold_of_nnunet(given, path, fold)
    if not isinstance(given, Mapping) or not {"train", "validation"} <= set(given):
        raise ConfigError(
            "the split file needs the keys train and validation",
            file=path,
            found=", ".join(given) if isinstance(given, Mapping) else type(given).__name__,
            expected='{"train": [...], "validation": [...], "test": [...]} with case or subject '
            "names, as splits.json of a run has them",
        )
    known: dict[str, list[Case]] = {}
    for case in cases:
        names = {case.name, case.subject, case.subject.rsplit("/", 1)[-1]}
        for name in names | ({stem(case.label.path)} if of_nnunet else set()):
            known.setdefault(name, []).append(case)
    sides: dict[str, list[str]] = {}
    for side in SIDES:
        names = [] if given.get(side) is None else given[side]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(
                f"'{side}' of the split file is not a list of names",
                file=path,
                found=names,
                expected=f'"{side}": ["case or subject", ...]',
            )
        sides[side] = names
    unknown = [name for names in sides.values() for name in names if name not in known]
    if unknown:
        raise ConfigError(
            "the split file names cases that were not found",
            file=path,
            found=", ".join(map(str, unknown[:6])) + (" ..." if len(unknown) > 6 else ""),
            expected=f"such as {', '.join(sorted(known)[:4])}",
        )
    chosen = {side: [c for name in names for c in known[name]] for side, names in sides.items()}
    all_train = given.get("held_out") is False
    how = f"split file {path.name}"
    split = _check_given_split(chosen, how, people_overlap or all_train)
    split = replace(split, held_out=not all_train)
    return replace(split, source_trained=tuple(given.get(SOURCE_TRAINED) or ()))


def _fold_of_nnunet(folds: Sequence[Any], path: Path, fold: int | str | None) -> object:
    """One fold of nnU-Net's splits_final.json, in the words of this package."""
    number = fold if isinstance(fold, int) else 0 if len(folds) == 1 else None
    if number is None or number >= len(folds):
        raise ConfigError(
            "nnU-Net's split file has several folds, of which one is used",
            file=path,
            found=f"datasets.fold={fold}",
            expected=f"0 to {len(folds) - 1}",
            fix="datasets.fold=0",
        )
    one = folds[number]
    named = isinstance(one, Mapping) and {"train", "val"} <= set(one)
    return {"train": one["train"], "validation": one["val"]} if named else one


def _check_given_split(
    sides: Mapping[str, Sequence[Case]], how: str, overlap_allowed: bool = False
) -> Split:
    """A split that the user gives, without empty sides and subjects on two sides."""
    unique = {side: tuple(dict.fromkeys(sides.get(side, ()))) for side in SIDES}
    for side in ("train", "validation"):
        if not unique[side]:
            raise ConfigError(f"the given split has no case in {side}", found=how)
    seen: dict[str, str] = {}
    for side, case in [(name, case) for name in SIDES for case in unique[name]]:
        other = seen.setdefault(case.subject, side)
        if other != side and not overlap_allowed:
            raise ConfigError(
                f"subject '{case.subject}' is both in {other} and in {side}",
                found=how,
                fix="keep all cases of one person on one side",
            )
    how += ": " + ", ".join(f"{len(unique[side])} {side}" for side in SIDES) + " cases"
    parts = (unique["train"], unique["validation"], unique["test"])
    return Split(*parts, how, held_out=not overlap_allowed)
