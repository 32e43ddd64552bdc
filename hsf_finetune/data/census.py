"""The label census: what supervises each class, in voxels on the network's grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Case, Cohort
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace
from hsf_finetune.system.atomic_files import write_csv
from hsf_finetune.system.console import TitledTable, count_of, shorten_list
from hsf_finetune.system.errors import DataError

FEW_CASES = 3
"""A class with fewer training cases than this gets a warning."""

CaseVoxels = tuple[Case, npt.NDArray[np.int64]]
"""A case and the voxels of each of its label rows, (rows,)."""


@dataclass(frozen=True)
class Supervision:
    """How the cases of one dataset supervise one class.

    A class is supervised exactly by voxels that can be of no other class, and through a set
    by voxels of one of several classes. Sets that include the background do not tell where
    a foreground class is, and are not counted.

    Args:
        dataset: name of the dataset.
        class_name: the class.
        cases: number of cases of the dataset.
        exact_cases: cases with voxels of this class alone.
        exact_voxels: number of those voxels.
        set_cases: cases with voxels of a set that this class belongs to.
        set_voxels: number of those voxels.
    """

    dataset: str
    class_name: str
    cases: int
    exact_cases: int
    exact_voxels: int
    set_cases: int
    set_voxels: int


@dataclass(frozen=True)
class Census:
    """What supervises each of the model's classes.

    Args:
        classes: their names.
        rows: one per dataset and class, in their order.
        apart: pairs of classes of which every dataset that draws one leaves the other unannotated.
    """

    classes: tuple[str, ...]
    rows: tuple[Supervision, ...]
    apart: tuple[tuple[str, str], ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets, in order of appearance."""
        return tuple(dict.fromkeys(row.dataset for row in self.rows))

    def of_class(self, name: str) -> list[Supervision]:
        """How each dataset supervises a class."""
        return [row for row in self.rows if row.class_name == name]


def take_census(counted: Iterable[CaseVoxels], classes: ClassSpace) -> Census:
    """Counts what supervises each of the model's classes."""
    by_dataset: dict[str, list[CaseVoxels]] = {}
    for case, voxels in counted:
        by_dataset.setdefault(case.dataset, []).append((case, voxels))
    rows = tuple(
        _count_supervision(dataset, name, number, cases)
        for dataset, cases in by_dataset.items()
        for number, name in enumerate(classes.names)
    )
    unannotated = {name: _find_unannotated(cases[0][0]) for name, cases in by_dataset.items()}
    drawn = [(row.class_name, unannotated[row.dataset]) for row in rows if row.exact_cases]
    shown = [name for name in classes.foreground if any(name == one for one, _ in drawn)]
    apart = (
        (a, b)
        for a, b in combinations(shown, 2)
        if all({a, b} - {name} <= hidden for name, hidden in drawn if name in (a, b))
    )
    return Census(classes.names, rows, tuple(apart))


def check_census(census: Census, allowed: Sequence[str]) -> None:
    """Refuses classes, other than those of `allowed`, that no label of a training case shows.

    Raises:
        DataError: such a class exists.
    """
    missing = [
        name
        for name in census.classes
        if name not in allowed
        and not any(row.exact_cases or row.set_cases for row in census.of_class(name))
    ]
    if missing:
        raise DataError(
            f"no label of a training case shows {', '.join(missing)}: the model would learn "
            "never to predict it",
            found=f"datasets {', '.join(census.datasets)}, "
            + count_of(_count_cases(census), "training case"),
            fix=f"datasets.allow_unsupervised=[{','.join(missing)}] to train nevertheless;\n"
            "or remove it from labels_names, or check labels: and the split",
        )


def classes_without_labels(settings: Settings, cohort: Cohort) -> list[str]:
    """The classes that no label of a training case needs to show."""
    allowed = [*settings.datasets.allow_unsupervised]
    if settings.finetuning.keep_old is not None:
        sets = {names for case in cohort.cases for names in case.protocol.row_sets}
        allowed += sorted({one for names in sets if BACKGROUND in names for one in names})
    return allowed


def census_warnings(census: Census) -> list[str]:
    """Warnings about classes in few cases, in sets only, or never beside each other."""
    found, rare, vague = [], [], []
    for name in census.classes:
        rows = census.of_class(name)
        count = sum(max(row.exact_cases, row.set_cases) for row in rows)
        if 0 < count < FEW_CASES:
            rare.append(f"{name} ({count})")
        if count and not any(row.exact_cases for row in rows):
            vague.append(name)
    if rare and _count_cases(census) >= FEW_CASES:
        found.append(f"few training cases show {', '.join(rare)}")
    if vague:
        found.append(
            f"only sets show {', '.join(vague)}: training cannot tell it from the "
            "set's other classes, only what the model already knows can"
        )
    if census.apart:
        found.append(
            f"no dataset draws {shorten_list([f'{a} beside {b}' for a, b in census.apart])}: where "
            "one is drawn the other is unannotated, so that training learns little about which of "
            "them a voxel is, and validation cannot see it (docs/labels.md)"
        )
    return found


def census_table(census: Census) -> Table:
    """Cases and voxels that supervise each class, a column per dataset."""
    table = TitledTable(
        "Label census of the training cases",
        "cases (voxels) of the class alone; ~ through a set it belongs to; - none",
    )
    table.add_column("class")
    for dataset in census.datasets:
        cases = next(row.cases for row in census.rows if row.dataset == dataset)
        table.add_column(Text(f"{dataset}, {count_of(cases, 'case')}"), justify="right")
    for name in census.classes:
        table.add_row(Text(name), *(Text(_format_cell(row)) for row in census.of_class(name)))
    return table


def write_census(path: str | Path, sides: Mapping[str, Census]) -> None:
    """Writes one line per side of the split, dataset and class as CSV.

    Raises:
        OutputError: the file cannot be written.
    """
    header = ["side", *(field.name for field in fields(Supervision))]
    lines = ([side, *astuple(row)] for side, census in sides.items() for row in census.rows)
    write_csv(path, header, lines)


def _find_unannotated(case: Case) -> frozenset[str]:
    """The classes that the background of a case's protocol may be."""
    sets = [names for names in case.protocol.row_sets if len(names) < len(case.protocol.space)]
    return frozenset().union(*(names for names in sets if BACKGROUND in names)) - {BACKGROUND}


def _count_supervision(
    dataset: str, name: str, number: int, cases: Sequence[CaseVoxels]
) -> Supervision:
    exact, in_sets = [], []
    for case, voxels in cases:
        matrix, informative = case.protocol.matrix, case.protocol.informative_rows
        alone = matrix.sum(axis=1) == 1
        firm = informative if name == BACKGROUND else informative & case.protocol.foreground_rows
        exact.append(int(voxels[matrix[:, number] & alone].sum()))
        in_sets.append(int(voxels[matrix[:, number] & ~alone & firm].sum()))
    counts = (sum(map(bool, exact)), sum(exact), sum(map(bool, in_sets)), sum(in_sets))
    return Supervision(dataset, name, len(cases), *counts)


def _count_cases(census: Census) -> int:
    return sum(row.cases for row in census.of_class(BACKGROUND))


def _format_cell(row: Supervision) -> str:
    exact = f"{row.exact_cases} ({_shorten(row.exact_voxels)})" if row.exact_cases else ""
    in_sets = f"~{row.set_cases} ({_shorten(row.set_voxels)})" if row.set_cases else ""
    return f"{exact} {in_sets}".strip() or "-"


def _shorten(count: int) -> str:
    """1234567 -> 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f}{unit}"
    return str(count)
