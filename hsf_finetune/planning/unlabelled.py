"""The scans without labels that a run may learn from, apart from those that it must not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from hsf_finetune.config.settings import DatasetsSettings, Settings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.data.discovery.found_files import LedgerEntry
from hsf_finetune.data.discovery.subjects import assign_subjects, of_folder, person_key
from hsf_finetune.data.splits import Split
from hsf_finetune.data.volumes.read_volume import VolumeRef, read_shape, stem
from hsf_finetune.inference.model_card import common_geometry
from hsf_finetune.inference.scan_jobs import Job, SegmentOptions, plan_jobs
from hsf_finetune.planning.run_cases import RunCases
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, UserError

_WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class UnlabelledScan:
    """A scan that a teacher labels.

    Args:
        name: unique among those of a run, and valid as a file name.
        subject: the person, as far as its path tells, as cases have it.
        channels: one volume per input channel.
        dataset: the dataset of labelled cases in whose folder it lies; empty if it lies elsewhere.
    """

    name: str
    subject: str
    channels: tuple[VolumeRef, ...]
    dataset: str = ""


@dataclass(frozen=True)
class UnlabelledScans:
    """The scans that a run learns from without labels, and those that it leaves out.

    Args:
        scans: in order of their names.
        left_out: path -> why it is not used.
        hidden: of the scans, those that have a label which the run does not read.
    """

    scans: tuple[UnlabelledScan, ...]
    left_out: Mapping[Path, str]
    hidden: int = 0

    def lines(self) -> list[str]:
        """What a user should know of them."""
        subjects = len({scan.subject for scan in self.scans})
        found = [
            f"unlabelled: {count_of(len(self.scans), 'scan')} of {count_of(subjects, 'subject')}"
        ]
        if self.hidden:
            found.append(f"  {self.hidden} of them have a label, which is not used")
        reasons = Counter(why.partition(":")[0] for why in self.left_out.values())
        if reasons:
            counted = ", ".join(f"{count} {why}" for why, count in reasons.items())
            found.append(f"  left out: {counted} (ledger.csv)")
        return found

    def plan(self, settings: Settings, training: int, folds: int | None) -> list[str]:
        """What self-training does, beside the schedule and forecast of one run.

        Args:
            settings: of the run.
            training: labelled cases that train.
            folds: that are made, beside a final model; None for a single split.
        """
        tuning, own = settings.finetuning.selftrain, settings.datasets.k_sample
        assert tuning is not None
        before, after = own or training, own or training + len(self.scans)
        runs = tuning.rounds + (0 if tuning.teacher else 1)
        first = "" if tuning.teacher else "the teacher as above, and "
        students = count_of(tuning.rounds, "student")
        each = f", {runs} for each of {folds} folds and the final model" if folds else ""
        runs *= 1 + (folds or 0)
        text = f"self-training: {count_of(runs, 'run')}{each}, {first}{students}"
        if after != before:
            text += f" whose epochs draw {after} cases, not {before}"
        if tuning.max_epochs:
            text += f", for {tuning.max_epochs} epochs"
        return [text]

    def add_to(self, cohort: Cohort) -> Cohort:
        """The cohort with these files in its ledger."""
        used = {ref.path: scan for scan in self.scans for ref in scan.channels}
        known = [
            entry
            for entry in cohort.others
            if entry.path not in used and entry.path not in self.left_out
        ]
        new = [
            LedgerEntry(path, "unlabelled", f"is labelled as {scan.name}", "", scan.subject)
            for path, scan in used.items()
        ]
        of_cases = {ref.file for case in cohort.cases for ref in case.volumes}
        new += [
            LedgerEntry(path, "unused", f"not used without a label: {why}")
            for path, why in self.left_out.items()
            if str(path) not in of_cases
        ]
        return replace(cohort, others=(*known, *new))


def require_unlabelled(datasets: DatasetsSettings) -> None:
    """Refuses self-training without scans, before anything is made for it.

    Raises:
        ConfigError: no scans are given.
    """
    if not datasets.unlabelled:
        raise ConfigError(
            "self-training learns from scans without labels, and none are given",
            expected="datasets.unlabelled: a folder, a file or a pattern",
            fix="datasets.unlabelled=FOLDER, or another strategy: finetuning=default",
        )


def find_unlabelled(datasets: DatasetsSettings, cohort: Cohort, split: Split) -> UnlabelledScans:
    """The scans of `datasets.unlabelled`, apart from those that must not be used.

    A scan is left out if a case of the split has the same file, or one of the same content, if
    its person validates or tests (unless `unlabelled_held_out` allows that), if its header
    cannot be read, or if it is there twice, by path or by content.

    Raises:
        ConfigError: a path does not exist, or no scan is left.
        DataError: a folder holds no scan, or a channel is missing.
    """
    require_unlabelled(datasets)
    geometry = common_geometry(datasets.datasets.values())
    nowhere, jobs = Path("/nonexistent"), list[Job]()
    left_out: dict[Path, str] = {}
    labels = {case.label.path.resolve() for case in cohort.cases}
    for entry in datasets.unlabelled:
        folder, pattern = _folder_and_pattern(entry)
        plan = plan_jobs(
            [folder], nowhere, SegmentOptions(pattern=pattern), geometry, cohort.channels
        )
        jobs += plan.jobs
        left_out |= {path: f"no scan: {why}" for path, why in plan.skipped}
    images = []
    for job in jobs:
        path = job.channels[0].path
        if path.resolve() in labels:
            left_out[path] = "no scan: the label of a case"
        else:
            images.append(job)
    kept, refused = choose_new_scans(images, RunCases(datasets, cohort, split))
    left_out |= refused
    if not kept:
        raise ConfigError(
            "no scan of datasets.unlabelled can be used",
            found="; ".join(f"{path.name} {why}" for path, why in [*left_out.items()][:6]),
            fix="give other scans: datasets.unlabelled=FOLDER",
        )
    known = {case.images[0].path.resolve() for case in cohort.cases}
    hidden = sum(scan.channels[0].path in known for scan in kept)
    return UnlabelledScans(tuple(_with_unique_names(kept)), left_out, hidden)


def choose_new_scans(
    jobs: Sequence[Job], known: RunCases
) -> tuple[list[UnlabelledScan], dict[Path, str]]:
    """The scans that a run may learn from, by the rules of `find_unlabelled`, and why not the others."""
    scans = []
    for job in jobs:
        path = job.channels[0].path
        name = re.sub(r"[^\w.\-]+", "_", "__".join((*job.place.parts[:-1], stem(path))))
        channels = tuple(ref.moved_to(ref.path.resolve()) for ref in job.channels)
        scans.append(UnlabelledScan(name, "", channels))
    scans = _with_subjects(scans, known.cohort, known.datasets)
    rules = _Rules(known.cohort, known.split, known.datasets.unlabelled_held_out)
    kept: list[UnlabelledScan] = []
    left_out: dict[Path, str] = {}
    for scan in sorted(scans, key=lambda one: str(one.channels[0])):
        reason = rules.reason_against(scan)
        if reason:
            left_out[scan.channels[0].path] = reason
        else:
            kept.append(scan)
    return kept, left_out


def drop_known_scans(
    jobs: Sequence[Job], known: RunCases
) -> tuple[list[Job], list[tuple[Path, str]]]:
    """The scans that `choose_new_scans` chooses, and the others under their own paths, with why."""
    chosen, reasons = choose_new_scans(jobs, known)
    waiting = {scan.channels[0].path for scan in chosen}
    kept, left_out = list[Job](), list[tuple[Path, str]]()
    for job in jobs:
        path = job.channels[0].path
        if path.resolve() in waiting:
            waiting.remove(path.resolve())
            kept.append(job)
        else:
            left_out.append((path, reasons[path.resolve()]))
    return kept, left_out


# -------------------------------------------------------------------- internals
def _folder_and_pattern(entry: str) -> tuple[str, str | None]:
    """What to look in, as for `plan_jobs`, and which of its files to take; None takes all scans."""
    if not _WILDCARDS.search(entry) or Path(entry).exists():
        if missing := [part for part in entry.split(",") if not Path(part).exists()]:
            raise ConfigError(
                "datasets.unlabelled names what does not exist",
                file=missing[0],
                expected="a folder, a file or a pattern, from datasets.main_path or from the "
                "working directory",
            )
        return entry, None
    parts = Path(entry).parts
    first = next(n for n, part in enumerate(parts) if _WILDCARDS.search(part))
    return str(Path(*parts[:first])), "/".join(parts[first:])


def _with_subjects(
    scans: Sequence[UnlabelledScan], cohort: Cohort, datasets: DatasetsSettings
) -> list[UnlabelledScan]:
    """The scans with their subjects, found by the rule of the dataset in whose folder they lie.

    That of a scan of a case's person is the case's subject.
    """
    base = Path(datasets.main_path).expanduser().resolve()
    found: dict[int, tuple[str, str]] = {}
    for name, dataset in datasets.datasets.items():
        root = (base / dataset.path).resolve()
        cases = [case for case in cohort.cases if case.dataset == name]
        own = [case for case in cases if case.images[0].path.is_relative_to(root)]
        inside = {
            number: scan.channels[0].path
            for number, scan in enumerate(scans)
            if number not in found and scan.channels[0].path.is_relative_to(root)
        }
        if inside:
            paths = [*(case.images[0].path for case in own), *inside.values()]
            subjects = assign_subjects(paths, root, dataset.subject)
            # Beside further files the rule may give a case another subject than it has, and a
            # table may give it any.
            of_case = {subject: case.subject for subject, case in zip(subjects, own, strict=False)}
            further = zip(inside, subjects[len(own) :], strict=True)
            found |= {
                n: (of_case.get(subject) or of_folder(subject, root, base), name)
                for n, subject in further
            }
    rest = {n: scan.channels[0].path for n, scan in enumerate(scans) if n not in found}
    if rest:
        top = Path(*_common_parts([path.parent for path in rest.values()]))
        subjects = assign_subjects([*rest.values()], top, None)
        found |= {n: (subject, "") for n, subject in zip(rest, subjects, strict=True)}
    return [
        replace(scan, subject=found[number][0], dataset=found[number][1])
        for number, scan in enumerate(scans)
    ]


def _common_parts(folders: Sequence[Path]) -> Iterator[str]:
    for parts in zip(*(folder.parts for folder in folders), strict=False):
        if len({*parts}) > 1:
            return
        yield parts[0]


class _Rules:
    """What speaks against the use of a scan without a label.

    The reasons read well behind a count ("2 given twice") and behind "it is", and have details
    behind a colon.
    """

    def __init__(self, cohort: Cohort, split: Split, held_out_allowed: bool) -> None:
        used = dict.fromkeys((*split.train, *split.validation, *split.test))
        self._channels = cohort.channels
        self._known = _KnownFiles()
        for case in used:
            for ref in case.images:
                self._known.add(ref.path.resolve(), f"used by the run with a label: {case.name}")
        held_out = [*split.test, *(split.validation if split.held_out else ())]
        self._people = (
            {} if held_out_allowed else {_person(case.subject): case for case in held_out}
        )

    def reason_against(self, scan: UnlabelledScan) -> str:
        """Why the scan must not be used; empty where it may be."""
        path = scan.channels[0].path
        if reason := self._known.find(path):
            return reason
        if case := self._people.get(_person(scan.subject)):
            return f"of a subject that validates or tests: {case.subject}"
        if len(scan.channels) != self._channels:
            return f"unlike the cases in channels: {len(scan.channels)}, not {self._channels}"
        try:
            shapes = {read_shape(ref)[0] for ref in scan.channels}
        except (UserError, OSError) as error:
            return f"not readable: {str(error).splitlines()[0]}"
        if len(shapes) > 1:
            return "not on one grid: its channels differ in shape"
        self._known.add(path, f"given twice: the same as {path}")
        return ""


class _KnownFiles:
    """Files, each with a text, found again by path or content; of those of one size the bytes count."""

    def __init__(self) -> None:
        self._texts: dict[Path, str] = {}
        self._sizes: dict[int, list[Path]] = {}
        self._checksum = cache(partial(Checksum.of_file, algorithm="xxh3_128"))

    def add(self, path: Path, text: str) -> None:
        """Adds a file."""
        self._texts[path] = text
        if path.is_file():
            self._sizes.setdefault(path.stat().st_size, []).append(path)

    def find(self, path: Path) -> str:
        """The text of the same file or of one with the same content; empty without one."""
        if text := self._texts.get(path):
            return text
        alike = self._sizes.get(path.stat().st_size, []) if path.is_file() else []
        same = (one for one in alike if self._checksum(one) == self._checksum(path))
        return next((self._texts[one] for one in same), "")


def _person(subject: str) -> str:
    """The last part of a subject, which is the same in two folders, for all of its spellings."""
    return person_key(subject.rsplit("/", 1)[-1])


def _with_unique_names(scans: Sequence[UnlabelledScan]) -> Iterator[UnlabelledScan]:
    uses: Counter[str] = Counter()
    for scan in scans:
        uses[scan.name] += 1
        number = uses[scan.name]
        yield scan if number == 1 else replace(scan, name=f"{scan.name}__{number}")
