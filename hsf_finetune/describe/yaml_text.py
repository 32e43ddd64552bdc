"""The dataset YAML as text: a comment above every key, and `# unsure:` where it guesses."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.describe.label_geometry import Geometry
from hsf_finetune.describe.label_values import Counts, Naming
from hsf_finetune.describe.layouts.base_layout import Doubt, Layout
from hsf_finetune.describe.patterns import Pattern, Patterns
from hsf_finetune.describe.subject_rules import Subjects

_WIDTH = 96
_NO_TEXT = ("yes", "no", "on", "off", "true", "false", "null")


@dataclass(frozen=True)
class Description:
    """Everything that the YAML says.

    Args:
        folder: the data.
        name: of the cohort.
        layout: how the folder is laid out.
        patterns: which files belong together; None where `table` says it.
        table: file that lists the cases.
        subjects: how the people are told.
        geometry: what the headers say.
        counts: of the values in the label files.
        naming: what they are called.
        refused: files of cases that cannot be used, and why.
    """

    folder: Path
    name: str
    layout: Layout
    patterns: Patterns | None
    table: Path | None
    subjects: Subjects
    geometry: Geometry
    counts: Counts
    naming: Naming
    refused: tuple[tuple[str, str], ...]

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Everything that is not certain, in the order of the keys."""
        every = (
            *self.layout.doubts,
            *self._listed,
            *self.naming.doubts,
            *self.subjects.doubts,
            *(Doubt("exclude", f"left out, {why}: {file}") for file, why in self.refused),
            *self.geometry.doubts,
        )
        order = ("patterns", "labels", "labels_names", "subject", "exclude", "spacing_mm")
        return tuple(sorted(every, key=lambda d: order.index(d.key) if d.key in order else -1))

    @property
    def _listed(self) -> tuple[Doubt, ...]:
        if self.table is None:
            return ()
        text = "no pattern finds exactly these files, so a table lists them"
        return (Doubt("patterns", text),)

    def text(self, commands: Sequence[str]) -> str:
        """The YAML.

        Args:
            commands: what to type to use it.
        """
        few = f"{len(self.layout.cases)} cases of {len({*self.subjects.ids})} subjects"
        lines = [
            *_comment(f"{self.name}: {few}, {self.layout.title}.", 0),
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
            *self._spacing_note(),
            *self._doubtful("target_spacing_mm", 0),
            "target_spacing_mm: null",
            "# name of each input channel, in the order of mri:",
            *self._doubtful("channel_names", 0),
            f"channel_names: {_flow(self.layout.channel_names)}",
            "",
            "# one entry per cohort: which files, and what their labels mean",
            "datasets:",
            "  # its name in tables and file names",
            f"  {_key(self.name)}:",
            "    # folder below main_path",
            '    path: "."',
            *(self._patterns() if self.patterns else self._table()),
            *self._labels(),
            *self._rest(),
        ]
        return "\n".join(lines) + "\n"

    # ---------------------------------------------------------------- internals
    def _doubtful(self, key: str, indent: int = 4) -> list[str]:
        """The lines that mark what is not certain about a key."""
        found = [doubt.text for doubt in self.doubts if doubt.key == key]
        return [line for text in found for line in _comment(f"unsure: {text}", indent)]

    def _spacing_note(self) -> list[str]:
        _, middle, _ = self.geometry.spacing_mm
        size = " x ".join(f"{n:g}" for n in middle)
        largest = " x ".join(map(str, self.geometry.largest_vox))
        text = (
            "voxel size in mm to resample to (right, anterior, superior); null keeps each "
            f"scan's. Found: {size} mm along the stored axes, volumes up to {largest} voxels"
        )
        return _comment(text, 0)

    def _patterns(self) -> list[str]:
        assert self.patterns is not None
        lines = _comment(
            "Series of images. A * in the label is the text of the image's *; a label pattern "
            "without a folder is looked up beside its image",
            4,
        )
        lines += [*self._doubtful("patterns"), "    patterns:"]
        for pattern in self.patterns.patterns:
            lines += _series(pattern)
        return lines

    def _table(self) -> list[str]:
        return [
            *_comment("CSV with the columns image[, image2, ...], label, subject", 4),
            *self._doubtful("patterns"),
            f"    table: {_quoted(str(self.table))}",
        ]

    def _labels(self) -> list[str]:
        numbers = _numbers(self.naming.names)
        read = f"{self.counts.read} of {self.counts.total} label files"
        source = self.naming.source
        place = f"names from {source.kind} {source.path.name}" if source else "no table names them"
        lines = _comment(
            "value in the label file -> label number; two values with one number are merged, "
            f"0 is background. Counted in {read}",
            4,
        )
        lines += [*self._doubtful("labels"), "    labels:"]
        for value, number in numbers.items():
            count, voxels = self.counts.cases[value], self.counts.voxels[value]
            lines.append(f"      {value}: {number} # in {count} files, {voxels} voxels")
        lines += _comment(f"label number -> class; {place}", 4)
        lines += [*self._doubtful("labels_names"), "    labels_names:"]
        lines += [
            f"      {number}: {_quoted(self.naming.names[value])}"
            for value, number in numbers.items()
        ]
        return lines

    def _rest(self) -> list[str]:
        spacing = self.geometry.given_spacing_mm
        ids = sorted({*self.subjects.ids})
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        column = ", or the table's column" if self.table else ""
        lines = [
            "    # values in the label files that say nothing about their voxels",
            f"    ignore: {_flow(self.naming.ignore)}",
            *_comment(
                "regular expression for the subject, its first group (null: BIDS sub-*, else "
                f"the case's folder, else the file name{column}). Subjects: {shown}",
                4,
            ),
            *self._doubtful("subject"),
            f"    subject: {_quoted(self.subjects.rule) if self.subjects.rule else 'null'}",
            "    # files to leave out: those without a label, and those that cannot be used",
            *self._doubtful("exclude"),
            f"    exclude: {_flow(self.patterns.exclude if self.patterns else ())}",
        ]
        if spacing is not None:
            lines += [
                "    # HDF5 without geometry: voxel size in mm along the stored axes",
                *self._doubtful("spacing_mm"),
                f"    spacing_mm: {_flow(spacing)}",
            ]
        return lines


def _series(pattern: Pattern) -> list[str]:
    lines = [f"      {_key(pattern.name)}:", f"        mri: {_one_or_list(pattern.mri)}"]
    if pattern.label is not None:
        lines.append(f"        label: {_quoted(pattern.label)}")
    if pattern.mri_key:
        if pattern.label is not None and {*pattern.mri_key} == {pattern.label_key}:
            return [*lines, f"        key: {_quoted(pattern.mri_key[0])}"]
        lines.append(f"        mri_key: {_one_or_list(pattern.mri_key)}")
    if pattern.label_key is not None:
        lines.append(f"        label_key: {_quoted(pattern.label_key)}")
    return lines


def _numbers(names: Mapping[int, str]) -> dict[int, int]:
    """Value -> label number: the value itself, or counted where values have gaps."""
    values = sorted(names)
    if all(0 < value <= 2 * len(values) for value in values):
        return {value: value for value in values}
    return {value: number for number, value in enumerate(values, start=1)}


def _comment(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _key(text: str) -> str:
    """A key, in quotes where YAML would take it for something else than text."""
    plain = re.fullmatch(r"[A-Za-z]\w+", text) and text.lower() not in _NO_TEXT
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    # JSON's strings are YAML's; a $ before a brace would be one of Hydra's interpolations.
    return json.dumps(text, ensure_ascii=False).replace("${", "\\\\${")


def _one_or_list(texts: Sequence[str]) -> str:
    return _quoted(texts[0]) if len(texts) == 1 else _flow(texts)


def _flow(values: Sequence[object] | None) -> str:
    if values is None:
        return "null"
    return (
        "["
        + ", ".join(
            _quoted(v) if isinstance(v, str) else f"{v:g}" if isinstance(v, float) else str(v)
            for v in values
        )
        + "]"
    )
