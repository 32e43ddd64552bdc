"""The dataset YAML as text, with a comment above every key and `# unsure:` above guesses."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.describe.header_summary import HeaderSummary
from hsf_finetune.describe.label_values import ValueCounts, ValueNames
from hsf_finetune.describe.layouts.base_layout import FolderLayout, UnsureNote
from hsf_finetune.describe.subject_rules import SubjectRule
from hsf_finetune.system.console import count_of

_WIDTH = 96
_NO_TEXT = ("yes", "no", "on", "off", "true", "false", "null")
_ORDER = ("patterns", "labels", "labels_names", "subject", "exclude", "spacing_mm")


@dataclass(frozen=True)
class DatasetDescription:
    """Everything that the YAML contains about the cohort `name` in a folder.

    The cases are found by `patterns`, settings whose `patterns` and `exclude` have a meaning, or
    listed in a `table`. `refused` are label files of cases that cannot be used, and why.
    """

    folder: Path
    name: str
    layout: FolderLayout
    patterns: DatasetSettings | None
    table: Path | None
    subject_rule: SubjectRule
    headers: HeaderSummary
    counts: ValueCounts
    value_names: ValueNames
    refused: tuple[tuple[str, str], ...]

    @property
    def notes(self) -> tuple[UnsureNote, ...]:
        """Everything that is not certain, in the order of the keys."""
        text = "no pattern finds exactly these files, so a table lists them"
        notes = (
            *self.layout.notes,
            *((UnsureNote("patterns", text),) if self.table is not None else ()),
            *self.value_names.notes,
            *self.subject_rule.notes,
            *(UnsureNote("exclude", f"left out, {why}: {file}") for file, why in self.refused),
            *self.headers.notes,
        )
        return tuple(sorted(notes, key=lambda n: _ORDER.index(n.key) if n.key in _ORDER else -1))

    def text(self, commands: Sequence[str]) -> str:
        """The YAML, with the commands that use it."""
        cases = count_of(len(self.layout.cases), "case")
        people = count_of(len({*self.subject_rule.subjects}), "subject")
        size = " x ".join(f"{n:g}" for n in self.headers.spacing_mm[1])
        largest = " x ".join(map(str, self.headers.largest_vox))
        lines = [
            *_comment(f"{self.name}: {cases} of {people}, {self.layout.title}.", 0),
            "#",
            *(f"#   {line}" for line in commands),
            "#",
            *_comment("Further keys (folds, patches, cache): see base.yaml and custom.yaml.", 0),
            "",
            "# folder that every dataset's path starts from",
            f"main_path: {_quoted(str(self.folder))}",
            "# each run makes a folder of its own in here",
            "output_path: outputs",
            "# volumes (or patches) per step",
            "batch_size: 2",
            "# share of subjects that train; the rest validates",
            "train_ratio: 0.8",
            *self._commented(
                "voxel size in mm to resample to (right, anterior, superior); null keeps each "
                f"scan's. Found: {size} mm along the stored axes, volumes up to {largest} voxels",
                "target_spacing_mm",
                0,
            ),
            "target_spacing_mm: null",
            *self._commented(
                "name of each input channel, in the order of mri:", "channel_names", 0
            ),
            f"channel_names: {_value(self.layout.channel_names)}",
            "",
            "# one entry per cohort: which files, and what their labels mean",
            "datasets:",
            "  # its name in tables and file names",
            f"  {_key(self.name)}:",
            "    # folder below main_path",
            '    path: "."',
            *self._files(),
            *self._labels(),
            *self._rest(),
        ]
        return "\n".join(lines) + "\n"

    def _commented(self, text: str, key: str, indent: int = 4) -> list[str]:
        """The comment above a key, and what is not certain about it."""
        unsure = [f"unsure: {note.text}" for note in self.notes if note.key == key]
        return [line for each in (text, *unsure) for line in _comment(each, indent)]

    def _files(self) -> list[str]:
        if self.patterns is None:
            text = "CSV with the columns image[, image2, ...], label, subject"
            return [*self._commented(text, "patterns"), f"    table: {_quoted(str(self.table))}"]
        text = (
            "Series of images. A * in the label is the text of the image's *; a label pattern "
            "without a folder is looked up beside its image"
        )
        lines = [*self._commented(text, "patterns"), "    patterns:"]
        for name, pattern in self.patterns.patterns.items():
            lines.append(f"      {_key(name)}:")
            values = pattern.model_dump(exclude_none=True)
            lines += (f"        {key}: {_value(value)}" for key, value in values.items())
        return lines

    def _labels(self) -> list[str]:
        names = self.value_names.names
        numbers = _number_values(names)
        read = f"{self.counts.read} of {self.counts.total} label files"
        table = self.value_names.table
        origin = f"names from {table.kind} {table.path.name}" if table else "no table names them"
        text = (
            "value in the label file -> label number; two values with one number are merged, "
            f"0 is background. Counted in {read}"
        )
        lines = [*self._commented(text, "labels"), "    labels:"]
        for value, number in numbers.items():
            count, voxels = self.counts.cases[value], self.counts.voxels[value]
            lines.append(f"      {value}: {number} # in {count} files, {voxels} voxels")
        lines += self._commented(f"label number -> class; {origin}", "labels_names")
        lines.append("    labels_names:")
        lines += [f"      {number}: {_quoted(names[value])}" for value, number in numbers.items()]
        if table is not None and table.colours:
            lut = table.path.relative_to(self.folder).as_posix()
            lines += ["    # colours of the values, for segmentations", f"    lut: {_quoted(lut)}"]
        return lines

    def _rest(self) -> list[str]:
        spacing = self.headers.given_spacing_mm
        expression = self.subject_rule.expression
        ids = sorted({*self.subject_rule.subjects})
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        column = ", or the table's column" if self.table else ""
        lines = [
            "    # values in the label files that mean: not annotated",
            f"    ignore: {_value(self.value_names.ignore)}",
            *self._commented(
                "regular expression for the subject, its first group (null: BIDS sub-*, else "
                f"the case's folder, else the file name{column}). Subjects: {shown}",
                "subject",
            ),
            f"    subject: {_value(expression)}",
            *self._commented(
                "files to leave out: those without a label, and those that cannot be used",
                "exclude",
            ),
            f"    exclude: {_value(self.patterns.exclude if self.patterns else ())}",
        ]
        if spacing is not None:
            text = "HDF5 without geometry: voxel size in mm along the stored axes"
            lines += [*self._commented(text, "spacing_mm"), f"    spacing_mm: {_value(spacing)}"]
        return lines


def _number_values(names: Mapping[int, str]) -> dict[int, int]:
    """Value -> label number: the value itself, or counted where values have gaps."""
    values = sorted(names)
    if all(0 < value <= 2 * len(values) for value in values):
        return {value: value for value in values}
    return {value: number for number, value in enumerate(values, start=1)}


def _comment(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    wrapper = textwrap.TextWrapper(_WIDTH, start, start, break_long_words=False)
    wrapper.break_on_hyphens = False
    return wrapper.wrap(text)


def _key(text: str) -> str:
    """A key, in quotes where YAML would take it for something else than text."""
    plain = re.fullmatch(r"[A-Za-z]\w+", text) and text.lower() not in _NO_TEXT
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    # JSON's strings are YAML's; a $ before a brace would be one of Hydra's interpolations.
    return json.dumps(text, ensure_ascii=False).replace("${", "\\\\${")


def _value(value: object) -> str:
    """A value in one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _quoted(value)
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
