"""The images and labels that a table lists: `table: cases.csv` in place of patterns."""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.discovery.conflicts import find_label_conflicts
from hsf_finetune.data.discovery.match_patterns import AnnotatedImage, make_volume_ref
from hsf_finetune.data.volumes.read_volume import SUFFIXES, VolumeRef, holds_volume, is_volume
from hsf_finetune.system.atomic_files import plain_cell
from hsf_finetune.system.errors import ConfigError, DataError, UserError

_COLUMNS = "image[, image2, ...], label[, subject][, split]"
_MAX_COLUMNS, _MAX_BYTES = 1000, 1 << 28
_MAX_PROBLEMS = 1000
"""With so many problems the rest of a table is not read."""
_OTHERS = ("label", "subject", "split")
_SIDES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class TableRow:
    """One line of a table: its number in the file, from 1, and column -> text, stripped."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class CaseTable:
    """A table of cases: the names of its columns of images, one per channel, and of all columns.

    Names are in lower case; rows leave out the header and empty lines.
    """

    path: Path
    images: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @cached_property
    def has_split(self) -> bool:
        """Whether it gives a side of the split for any case."""
        return any(row.cells.get("split") for row in self.rows)

    def cell_error(
        self, row: TableRow, column: str, what: str, expected: str | None = None
    ) -> DataError:
        """The error about one cell, with its line and column."""
        where = f"{self.path}, line {row.line}, column {column}"
        return DataError(what, file=where, found=row.cells[column] or None, expected=expected)


def read_case_table(path: Path) -> CaseTable:
    """Reads a CSV or TSV with a header; commas, semicolons or tabs separate its cells.

    Columns of other names (age, scanner, ...) are allowed.

    Raises:
        DataError: the file cannot be read, lacks a column, or a line has too many cells.
    """
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= _MAX_BYTES):
            raise OSError(f"no file of up to {_MAX_BYTES >> 20} MiB")
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            reader = csv.reader(file, delimiter=max("\t;,", key=first.count), strict=True)
            lines = []
            for cells in reader:
                if len(cells) > _MAX_COLUMNS:
                    raise csv.Error(f"{len(cells)} cells in line {reader.line_num}")
                lines.append((reader.line_num, [plain_cell(cell.strip()) for cell in cells]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "the table cannot be read",
            file=path,
            found=getattr(error, "strerror", None) or str(error),
            expected=f"a CSV or TSV in UTF-8 of up to {_MAX_COLUMNS} columns",
            fix="correct it, or table: in the dataset's YAML",
        ) from error
    filled = [(number, cells) for number, cells in lines if any(cells)]
    columns = tuple(cell.lower() for cell in filled[0][1]) if filled else ()
    images = _image_columns(path, columns)
    rows = []
    for number, cells in filled[1:]:
        if any(cells[len(columns) :]):
            raise DataError(
                "a line of the table has more cells than the header",
                file=f"{path}, line {number}",
                found=f"{len(cells)} cells",
                expected=f"{len(columns)}: {', '.join(columns)}",
                fix='put a path that holds the separator into quotes: "a,b.nii.gz"',
            )
        padded = [*cells, *[""] * (len(columns) - len(cells))]
        rows.append(TableRow(number, dict(zip(columns, padded, strict=False))))
    return CaseTable(path, images, columns, tuple(rows))


def read_listed_images(
    name: str, dataset: DatasetSettings, root: Path, excluded: dict[Path, str]
) -> tuple[list[AnnotatedImage], list[UserError]]:
    """The images of a dataset's table with their labels, and the problems with other lines.

    The arguments are those of `find_annotated_images`; the dataset's name is also the series'.

    Raises:
        DataError, ConfigError: the table as a whole cannot be used.
    """
    table = read_case_table(Path(os.path.normpath(root / Path(str(dataset.table)).expanduser())))
    if not table.rows:
        raise DataError("the table lists no case", file=table.path, expected=_COLUMNS)
    if dataset.subject is not None and "subject" in table.columns:
        raise ConfigError(
            f"dataset '{name}' gives its subjects twice",
            file=table.path,
            found=f"a column subject, and in the YAML subject: {dataset.subject}",
            fix="remove one of the two",
        )
    pairs: list[AnnotatedImage] = []
    problems: list[UserError] = []
    first: dict[VolumeRef, TableRow] = {}
    for row in table.rows:
        if len(problems) >= _MAX_PROBLEMS:
            what = f"the table has {_MAX_PROBLEMS} problems up to here; the rest was not read"
            problems.append(DataError(what, file=f"{table.path}, line {row.line}"))
            break
        pair = _read_row(name, dataset, root, table, row)
        if isinstance(pair, list):
            problems += pair
        elif pair.exclude_incomplete(excluded):
            continue
        elif first.setdefault(pair.channels[0], row) is not row:
            line = first[pair.channels[0]].line
            what = f"the table lists the image twice: line {line} has it as well"
            problems.append(table.cell_error(row, table.images[0], what))
        else:
            pairs.append(pair)
    problems += find_label_conflicts([(pair.channels[0], pair.label) for pair in pairs])
    if not pairs and not problems:
        problems.append(DataError(f"exclude: leaves no case of {name}", file=table.path))
    return pairs, problems


def _image_columns(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of images, in the order of their numbers; refuses a faulty header."""
    found = [(column, re.fullmatch(r"image_?(\d{0,4})", column)) for column in columns]
    numbered = sorted((int(match[1] or 1), column) for column, match in found if match)
    repeated = [column for column, count in Counter(columns).items() if column and count > 1]
    unknown = [column for column, match in found if not match and column not in _OTHERS]
    free = [name for name in ("image", *_OTHERS) if name not in columns]
    close = [(c, difflib.get_close_matches(c, free, n=1, cutoff=0.8)) for c in unknown]
    hints = [f"did you mean '{like[0]}' by '{column}'?" for column, like in close if like]
    what = None
    if repeated:
        what = f"the table has the column '{repeated[0]}' twice"
    elif not numbered or "label" not in columns:
        what = f"the table has no column '{'label' if numbered else 'image'}'"
    elif [number for number, _ in numbered] != [*range(1, len(numbered) + 1)]:
        what = "the table's columns of images are not image, image2, image3, ..."
    elif hints:
        what = "a column of the table has a name that is almost a known one"
    if what is not None:
        raise DataError(
            what,
            file=f"{path}, line 1",
            found=", ".join(columns[:30]) or "an empty file",
            expected=_COLUMNS,
            fix="\n".join(hints) or None,
        )
    return tuple(column for _, column in numbered)


def _read_row(
    name: str, dataset: DatasetSettings, root: Path, table: CaseTable, row: TableRow
) -> AnnotatedImage | list[UserError]:
    """The annotated image of a line, or everything that is wrong with the line."""
    files = [_read_cell(dataset, root, table, row, column) for column in (*table.images, "label")]
    problems: list[UserError] = [found for found in files if isinstance(found, UserError)]
    refs = [found for found in files if isinstance(found, VolumeRef)]
    subject, given = row.cells.get("subject"), row.cells.get("split", "")
    if subject == "":
        expected = "the person's name or number in every line, or no such column"
        problems.append(table.cell_error(row, "subject", "the subject is missing", expected))
    side = next((side for side, words in _SIDES.items() if given.lower() in words), None)
    if table.has_split and side is None:
        expected = "train, validation or test in every line, or an empty column"
        what = "no side of the split" if given else "the side of the split is missing"
        problems.append(table.cell_error(row, "split", what, expected))
    if problems:
        return problems
    return AnnotatedImage(name, tuple(refs[:-1]), refs[-1], subject, side)


def _read_cell(
    dataset: DatasetSettings, root: Path, table: CaseTable, row: TableRow, column: str
) -> VolumeRef | UserError:
    """The volume that a cell names, as `scan.nii.gz` or `scans.h5:key`, or the error about it."""
    text, key = row.cells[column], None
    if not text:
        return table.cell_error(row, column, f"the {column} is missing", "a path")
    if inside := re.fullmatch(r"(.*\.(?:h5|hdf5)):(.+)", text, re.IGNORECASE):
        text, key = inside.groups()
    expected = f"a path from {table.path.parent}, or an absolute one"
    try:
        path = Path(os.path.normpath(table.path.parent / Path(text).expanduser()))
        if not path.is_relative_to(root) and path.resolve().is_relative_to(root):
            path = path.resolve()
        exists = path.is_file() or holds_volume(path)
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, an unknown ~user
        return table.cell_error(row, column, f"no path of a file: {error}"[:200], expected)
    if not (is_volume(path) or holds_volume(path)):
        return table.cell_error(row, column, "not a volume that can be read", " or ".join(SUFFIXES))
    if not exists:
        return table.cell_error(row, column, "no such file", expected)
    return make_volume_ref(path, key, dataset)
