"""Discovery: the cases that dataset descriptions give, and the status of every file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings, DatasetsSettings, ModelSettings
from hsf_finetune.data.discovery.case_table import read_listed_images
from hsf_finetune.data.discovery.conflicts import find_shared_images, make_names_unique
from hsf_finetune.data.discovery.found_files import LedgerEntry, find_other_files
from hsf_finetune.data.discovery.match_patterns import (
    AnnotatedImage,
    find_annotated_images,
    find_excluded_files,
)
from hsf_finetune.data.discovery.subjects import assign_subjects, of_folder, unite_spellings
from hsf_finetune.data.volumes.read_volume import VolumeRef, stem
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace, LabelMap
from hsf_finetune.labels.protocols import find_classes, read_label_map, refuse_sets
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import DataError, SeveralErrors, UserError


@dataclass(frozen=True, slots=True)
class Case:
    """One annotated scan: its channels, its label and the label's protocol.

    Args:
        name: unique in the run, and valid as a file name.
        subject: the person; cases of one subject stay on one side of a split.
        dataset: name of the dataset in the YAML.
        images: one volume per input channel.
        label: the manual segmentation.
        protocol: what the label's values mean.
        series: name of the pattern that matches it.
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
class Cohort:
    """Every case of a run.

    Args:
        cases: in order of their names.
        classes: the model's classes.
        channels: number of input channels of every case.
        others: the files that no case uses, or that a run uses without their label, and why.
    """

    cases: tuple[Case, ...]
    classes: ClassSpace
    channels: int
    others: tuple[LedgerEntry, ...] = field(repr=False)

    def ledger(self) -> Iterator[LedgerEntry]:
        """The status of every file: first of `others`, then case by case."""
        yield from sorted(self.others, key=lambda entry: entry.status)
        paths = {entry.path for entry in self.others}
        for case in self.cases:
            yield from (entry for entry in _entries_of(case) if entry.path not in paths)

    @property
    def label_values(self) -> dict[str, int]:
        """The value that segmentations have for each class.

        These are the values of the protocol that draws the most classes by themselves.
        """

        def count_alone(protocol: LabelMap) -> int:
            return sum(len(names) == 1 and names != {BACKGROUND} for names in protocol.row_sets)

        return max((case.protocol for case in self.cases), key=count_alone).values_to_write()


def discover(settings: DatasetsSettings, models: ModelSettings | None = None) -> Cohort:
    """Finds and pairs the files of every dataset.

    `models` tells the classes and whether labels may be sets of them; None is its defaults.

    Raises:
        UserError: there are no files, an image has no or several partners, or labels do
            not fit together; all problems at once.
    """
    models = models or ModelSettings()
    classes = find_classes(settings, models)
    base = Path(settings.main_path).expanduser().resolve()
    cases: list[Case] = []
    others: list[LedgerEntry] = []
    problems: list[UserError] = []
    protocols: dict[str, LabelMap] = {}
    for name, dataset in settings.datasets.items():
        root = (base / dataset.path).resolve()
        try:
            if not root.is_dir():
                raise _no_folder(name, root, settings)
            protocols[name] = read_label_map(name, dataset, classes)
            excluded = find_excluded_files(dataset, root)
            find = read_listed_images if dataset.table else find_annotated_images
            pairs, unpaired = find(name, dataset, root, excluded)
            problems += unpaired
            own = _make_cases(name, dataset, root, base, pairs, protocols[name])
            del pairs  # as large as the cases
            cases += own
            used = {ref.file for case in own for ref in case.volumes}
            others += find_other_files(name, dataset, root, excluded, used)
            del used
        except UserError as error:
            problems.append(error)
    try:
        if not models.use_forgiving_loss:
            refuse_sets(protocols)
    except UserError as error:
        problems.append(error)
    subjects = unite_spellings([case.subject for case in cases])
    cases = [replace(case, subject=one) for case, one in zip(cases, subjects, strict=True)]
    problems += find_shared_images([(c.dataset, c.subject, c.images[0], c.label) for c in cases])
    channels = {len(case.images) for case in cases}
    if len(channels) > 1:
        problems.append(_channels_differ(cases))
    if problems:
        raise SeveralErrors("the dataset's files do not fit its description:", problems)
    names = make_names_unique([(case.name, _join_name(case.series)) for case in cases])
    cases = [replace(case, name=name) for case, name in zip(cases, names, strict=True)]
    cases.sort(key=lambda case: case.name)
    return Cohort(tuple(cases), classes, channels.pop(), _without_used(others, cases))


def _make_cases(
    name: str,
    dataset: DatasetSettings,
    root: Path,
    base: Path,
    pairs: Sequence[AnnotatedImage],
    protocol: LabelMap,
) -> list[Case]:
    """The annotated images of a dataset as cases, named after their files."""
    top = root
    if not all(pair.image.is_relative_to(root) for pair in pairs):  # a table may list any file
        top = Path(os.path.commonpath([pair.image.parent for pair in pairs]))
    if all(pair.subject for pair in pairs):
        subjects = [_of_table(pair.subject or "", root, base) for pair in pairs]
    else:
        found = assign_subjects((pair.image for pair in pairs), top, dataset.subject)
        subjects = [of_folder(subject, root, base) for subject in found]
    return [
        Case(
            name=_join_name(name, *pair.image.relative_to(top).parts[:-1], stem(pair.image)),
            subject=subject,
            dataset=name,
            images=pair.channels,
            label=pair.label,
            protocol=protocol,
            series=pair.series,
            side=pair.side,
        )
        for pair, subject in zip(pairs, subjects, strict=True)
    ]


def _of_table(subject: str, root: Path, base: Path) -> str:
    """The subject of a line; one with a leading / is a subject of `main_path`: `/lab/sub-01`."""
    return subject[1:] if re.match("/.", subject) else of_folder(subject, root, base)


def _join_name(*parts: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", "__".join(parts))


def _without_used(others: Sequence[LedgerEntry], cases: Sequence[Case]) -> tuple[LedgerEntry, ...]:
    """The files that no case of any dataset uses, each once; that it is excluded counts more."""
    paths = {str(entry.path) for entry in others}
    paths -= {ref.file for case in cases for ref in case.volumes if ref.file in paths}
    unused: dict[str, LedgerEntry] = {}
    for entry in others:
        path = str(entry.path)
        if path in paths and (path not in unused or entry.status == "excluded"):
            unused[path] = entry
    return tuple(unused.values())


def _entries_of(case: Case) -> Iterable[LedgerEntry]:
    """An entry for each file of a case."""
    label = case.label.path
    entries = {}
    for number, ref in enumerate(case.images):
        reason = f"channel {number}" if len(case.images) > 1 else ""
        if ref.path == label:
            reason = "holds the label as well"
        entries[ref.path] = LedgerEntry(ref.path, "image", reason, case.name, case.subject)
    reason = f"pairs with {case.images[0].path.name}"
    entries.setdefault(label, LedgerEntry(label, "label", reason, case.name, case.subject))
    return entries.values()


def _channels_differ(cases: Sequence[Case]) -> DataError:
    example = {len(case.images): case.images[0] for case in cases}
    return DataError(
        "the cases differ in their number of input channels",
        found="\n".join(f"{count_of(n, 'channel')}, such as {one}" for n, one in example.items()),
        fix="give every pattern's mri: the same number of entries",
    )


def _no_folder(name: str, root: Path, settings: DatasetsSettings) -> DataError:
    path = settings.datasets[name].path
    return DataError(
        f"the folder of dataset '{name}' does not exist",
        file=root,
        expected=f"main_path '{settings.main_path}' joined with path '{path}'",
        fix="set datasets.main_path=/folder/of/your/data (for the template's phantom cohort: "
        "hsf-finetune phantom data)",
    )
