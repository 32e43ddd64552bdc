"""From a dataset description to cases: which files belong together, and what became of the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings, DatasetsSettings, ModelSettings
from hsf_finetune.data.discovery.case_table import listed_images
from hsf_finetune.data.discovery.conflicts import shared_by_datasets, unique_names
from hsf_finetune.data.discovery.images import Pair, annotated_images, excluded_files
from hsf_finetune.data.discovery.pairing import is_hidden
from hsf_finetune.data.discovery.subjects import subject_ids
from hsf_finetune.data.volumes.read_volume import VolumeRef, is_volume, stem
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap
from hsf_finetune.labels.protocols import class_space, label_map, refuse_sets
from hsf_finetune.system.errors import DataError, SeveralErrors, UserError


@dataclass(frozen=True)
class Case:
    """One annotated scan: its channels, its label and the protocol it was drawn in.

    Args:
        name: unique in the run, and fit for a file name.
        subject: the person; cases of one subject stay on one side of a split.
        dataset: name of the cohort in the YAML.
        images: one volume per input channel.
        label: the manual segmentation.
        protocol: what the label's values mean.
        series: name of the pattern that found it.
        side: side of the split (train, validation or test) that the dataset's table gives.
    """

    name: str
    subject: str
    dataset: str
    images: tuple[VolumeRef, ...]
    label: VolumeRef
    protocol: LabelMap
    series: str = ""
    side: str | None = None

    @property
    def volumes(self) -> tuple[VolumeRef, ...]:
        """Its images and its label."""
        return (*self.images, self.label)


@dataclass(frozen=True)
class LedgerEntry:
    """What became of a file: `image`, `label`, `excluded` or `unused`, and why.

    A file that serves several cases has an entry for each.
    """

    path: Path
    fate: str
    reason: str
    case: str = ""
    subject: str = ""


@dataclass(frozen=True)
class Cohort:
    """Every case that the dataset descriptions give, and the fate of every file."""

    cases: tuple[Case, ...]
    classes: ClassSpace
    channels: int
    ledger: tuple[LedgerEntry, ...] = field(repr=False)

    @property
    def label_values(self) -> dict[str, int]:
        """The value that segmentations have for each class.

        These are the values of the protocol that draws the most classes by themselves.
        """

        def exact(protocol: LabelMap) -> int:
            single = {names for names in protocol.row_sets if len(names) == 1}
            return len(single - {frozenset({BACKGROUND})})

        return max((case.protocol for case in self.cases), key=exact).value_of()


def discover(settings: DatasetsSettings, models: ModelSettings | None = None) -> Cohort:
    """Finds and pairs the files of every dataset.

    Args:
        settings: the `datasets` group.
        models: the `models` group, for its classes and for whether labels may be sets of
            them; None is its defaults.

    Raises:
        UserError: no files, a missing or ambiguous partner, or labels that do
            not fit together; all problems at once.
    """
    models = models or ModelSettings()
    classes = class_space(settings, models)
    base = Path(settings.main_path).expanduser().resolve()
    cases: list[Case] = []
    series: list[str] = []
    fates: list[LedgerEntry] = []
    problems: list[UserError] = []
    protocols: dict[str, LabelMap] = {}
    for name, dataset in settings.datasets.items():
        root = (base / dataset.path).resolve()
        if not root.is_dir():
            problems.append(_no_folder(name, root, settings, dataset))
            continue
        try:
            protocols[name] = label_map(name, dataset, classes)
            excluded = excluded_files(dataset, root)
            find = listed_images if dataset.table else annotated_images
            pairs, trouble = find(name, dataset, root, excluded)
            problems += trouble
            cases += _cases(name, dataset, root, base, pairs, protocols[name])
        except UserError as error:
            problems.append(error)
            continue
        series += [pair.series for pair in pairs]
        fates += _other_files(name, dataset, root, excluded)
    if not models.use_forgiving_loss:
        try:
            refuse_sets(protocols)
        except UserError as error:
            problems.append(error)
    problems += shared_by_datasets([(c.dataset, c.subject, c.images[0], c.label) for c in cases])
    channels = {len(case.images) for case in cases}
    if len(channels) > 1:
        problems.append(_channels_differ(cases))
    if problems:
        raise SeveralErrors("the dataset's files do not fit its description:", problems)
    names = unique_names(
        [(case.name, _file_name(s)) for case, s in zip(cases, series, strict=True)]
    )
    cases = [replace(case, name=name) for case, name in zip(cases, names, strict=True)]
    cases.sort(key=lambda case: case.name)
    return Cohort(tuple(cases), classes, channels.pop(), _ledger(cases, fates))


# -------------------------------------------------------------------- internals
def _cases(
    name: str,
    dataset: DatasetSettings,
    root: Path,
    base: Path,
    pairs: Sequence[Pair],
    protocol: LabelMap,
) -> list[Case]:
    """The pairs as cases, named after their files."""
    top = _top(root, [pair.image for pair in pairs])
    told = [pair.subject for pair in pairs if pair.subject]
    subjects = told or subject_ids([pair.image for pair in pairs], top, dataset.subject)
    # Two datasets in one folder are the same people, two folders are not.
    cohort = os.path.relpath(root, base)
    return [
        Case(
            name=_file_name(name, *pair.image.relative_to(top).parts[:-1], stem(pair.image)),
            subject=subject if cohort == "." else f"{Path(cohort).as_posix()}/{subject}",
            dataset=name,
            images=pair.channels,
            label=pair.label,
            protocol=protocol,
            series=pair.series,
            side=pair.side,
        )
        for pair, subject in zip(pairs, subjects, strict=True)
    ]


def _top(root: Path, images: Sequence[Path]) -> Path:
    """The folder that names of cases start from: a table may list files outside of `root`."""
    if all(image.is_relative_to(root) for image in images):
        return root
    return Path(os.path.commonpath([image.parent for image in images]))


def _file_name(*parts: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", "__".join(parts))


def _other_files(
    name: str, dataset: DatasetSettings, root: Path, excluded: Mapping[Path, str]
) -> list[LedgerEntry]:
    """Why each volume below the dataset's folder is left out, unless a case uses it."""
    unused = f"no pattern of '{name}' matches it"
    if dataset.table is not None:
        unused = f"the table of '{name}' does not list it"
    entries = []
    for path in sorted(p for p in root.rglob("*") if is_volume(p) and p.is_file()):
        if path in excluded:
            fate, reason = "excluded", f"matches exclude: {excluded[path]}"
        elif is_hidden(path, root):
            fate, reason = "excluded", "a hidden file"
        else:
            fate, reason = "unused", unused
        entries.append(LedgerEntry(path, fate, reason))
    return entries


def _ledger(cases: Sequence[Case], others: Sequence[LedgerEntry]) -> tuple[LedgerEntry, ...]:
    """The fate of every file: in use by a case, excluded by a dataset, or in no dataset's use."""
    used: dict[tuple[Path, str], LedgerEntry] = {}
    for case in cases:
        label = case.label.path
        reason = f"pairs with {case.images[0].path.name}"
        used[label, case.name] = LedgerEntry(label, "label", reason, case.name, case.subject)
        for number, ref in enumerate(case.images):
            reason = f"channel {number}" if len(case.images) > 1 else ""
            if ref.path == label:
                reason = "holds the label as well"
            used[ref.path, case.name] = LedgerEntry(
                ref.path, "image", reason, case.name, case.subject
            )
    paths = {path for path, _ in used}
    left: dict[Path, LedgerEntry] = {}
    for entry in others:
        if entry.path not in paths and (entry.path not in left or entry.fate == "excluded"):
            left[entry.path] = entry
    return (*used.values(), *left.values())


def _channels_differ(cases: Sequence[Case]) -> DataError:
    example = {len(case.images): case for case in cases}
    return DataError(
        "the cases differ in their number of input channels",
        found="\n".join(f"{n} channels, such as {c.images[0]}" for n, c in example.items()),
        fix="give every pattern's mri: the same number of entries",
    )


def _no_folder(
    name: str, root: Path, settings: DatasetsSettings, dataset: DatasetSettings
) -> DataError:
    return DataError(
        f"the folder of dataset '{name}' does not exist",
        file=root,
        expected=f"main_path '{settings.main_path}' joined with path '{dataset.path}'",
        fix="set datasets.main_path=/folder/of/your/data (for the template's phantom cohort: "
        "hsf-finetune phantom data)",
    )
