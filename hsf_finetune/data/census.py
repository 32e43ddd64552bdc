"""The label census: what supervises each class, counted in the voxels that the network sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.labels.classes import BACKGROUND, ClassSpace
from hsf_finetune.system import console
from hsf_finetune.system.errors import DataError
from hsf_finetune.system.files import write_csv

FEW_CASES = 3
"""A class with fewer training cases than this is worth a warning."""

Counted = tuple[Case, npt.NDArray[np.int64]]
"""A case and the voxels of each of its label rows, (rows,)."""


@dataclass(frozen=True)
class Supervision:
    """What the cases of one dataset say of one class.

    A class is supervised exactly by voxels that can be nothing else, and through a set
    by voxels that are one of several classes. Sets with the background in them say
    nothing of where a foreground class is, and count for none.

    Args:
        dataset: name of the cohort.
        class_name: the class.
        cases: of the dataset.
        exact_cases: cases with voxels of this class alone.
        exact_voxels: those voxels.
        set_cases: cases with voxels of a set that this class belongs to.
        set_voxels: those voxels.
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
    """What supervises each class in each dataset, in the model's order of classes.

    Args:
        classes: the model's.
        rows: one per dataset and class.
    """

    classes: tuple[str, ...]
    rows: tuple[Supervision, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets, in order of appearance."""
        return tuple(dict.fromkeys(row.dataset for row in self.rows))

    def of_class(self, name: str) -> list[Supervision]:
        """What each dataset says of a class."""
        return [row for row in self.rows if row.class_name == name]


def take_census(counted: Iterable[Counted], classes: ClassSpace) -> Census:
    """Counts what supervises each class."""
    by_dataset: dict[str, list[Counted]] = {}
    for case, voxels in counted:
        by_dataset.setdefault(case.dataset, []).append((case, voxels))
    return Census(
        classes.names,
        tuple(
            _supervision(dataset, name, number, cases)
            for dataset, cases in by_dataset.items()
            for number, name in enumerate(classes.names)
        ),
    )


def check_census(census: Census, allowed: Sequence[str]) -> None:
    """Refuses classes that no label of a training case shows.

    Args:
        census: of the training cases.
        allowed: classes that need no label.

    Raises:
        DataError: there is such a class.
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
            "that it is never there",
            found=f"datasets {', '.join(census.datasets)}, {_cases(census)} training cases",
            fix=f"datasets.allow_unsupervised=[{','.join(missing)}] to train all the same;\n"
            "or take it out of labels_names, or check labels: and the split",
        )


def census_warnings(census: Census) -> list[str]:
    """What deserves a second look: classes in few cases, or in sets only."""
    found = []
    few = {
        name: sum(max(row.exact_cases, row.set_cases) for row in census.of_class(name))
        for name in census.classes
    }
    rare = [f"{name} ({count})" for name, count in few.items() if 0 < count < FEW_CASES]
    if rare and _cases(census) >= FEW_CASES:
        found.append(f"few training cases show {', '.join(rare)}")
    vague = [
        name
        for name in census.classes
        if few[name] and not any(row.exact_cases for row in census.of_class(name))
    ]
    if vague:
        found.append(
            f"only sets show {', '.join(vague)}: what tells it from the set's other classes is "
            "what the model knows already"
        )
    return found


def census_table(census: Census) -> Table:
    """Cases and voxels that supervise each class, a column per dataset."""
    table = console.TitledTable(
        "Label census of the training cases",
        "cases (voxels) of the class alone; ~ through a set it belongs to; - none",
    )
    table.add_column("class")
    for dataset in census.datasets:
        cases = next(row.cases for row in census.rows if row.dataset == dataset)
        table.add_column(Text(f"{dataset}, {cases} cases"), justify="right")
    for name in census.classes:
        table.add_row(Text(name), *(Text(_cell(row)) for row in census.of_class(name)))
    return table


def write_census(path: str | Path, sides: Mapping[str, Census]) -> None:
    """Writes one line per side of the split, dataset and class as CSV.

    Raises:
        OutputError: the file cannot be written.
    """
    header = ["side", *(field.name for field in fields(Supervision))]
    lines = ([side, *astuple(row)] for side, census in sides.items() for row in census.rows)
    write_csv(path, header, lines)


# -------------------------------------------------------------------- internals
def _supervision(dataset: str, name: str, number: int, cases: Sequence[Counted]) -> Supervision:
    exact, through = [], []
    for case, voxels in cases:
        matrix, stated = case.protocol.matrix, case.protocol.stated_rows
        alone = matrix.sum(axis=1) == 1
        firm = stated if name == BACKGROUND else stated & case.protocol.foreground_rows
        exact.append(int(voxels[matrix[:, number] & alone].sum()))
        through.append(int(voxels[matrix[:, number] & ~alone & firm].sum()))
    return Supervision(
        dataset,
        name,
        len(cases),
        sum(n > 0 for n in exact),
        sum(exact),
        sum(n > 0 for n in through),
        sum(through),
    )


def _cases(census: Census) -> int:
    return sum(row.cases for row in census.of_class(BACKGROUND))


def _cell(row: Supervision) -> str:
    parts = []
    if row.exact_cases:
        parts.append(f"{row.exact_cases} ({_short(row.exact_voxels)})")
    if row.set_cases:
        parts.append(f"~{row.set_cases} ({_short(row.set_voxels)})")
    return " ".join(parts) or "-"


def _short(count: int) -> str:
    """1234567 -> 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f}{unit}"
    return str(count)
