"""`hsf-finetune init FOLDER`: finds the cases, describes them, verifies that, writes the YAML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mode

from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.describe.header_summary import read_headers
from hsf_finetune.describe.label_names import find_name_tables
from hsf_finetune.describe.label_values import count_values, name_values
from hsf_finetune.describe.layouts import bids_layout, by_name_layout, nnunet_layout
from hsf_finetune.describe.layouts.base_layout import (
    WITHOUT_IMAGE,
    FolderLayout,
    FoundCase,
    ListedVolume,
)
from hsf_finetune.describe.list_volumes import FolderListing, list_volumes
from hsf_finetune.describe.output_file import OutputFile, find_output_file, refuse_existing
from hsf_finetune.describe.patterns import find_patterns
from hsf_finetune.describe.subject_rules import find_subject_rule
from hsf_finetune.describe.verify import ALLOW_SETS, verify_description, write_table
from hsf_finetune.describe.yaml_text import DatasetDescription
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.console import count_of, progress, say, shorten_list
from hsf_finetune.system.errors import DataError

_LAYOUTS = (nnunet_layout, bids_layout, by_name_layout)


def describe_folder(folder: Path, output: Path | None = None, force: bool = False) -> Path:
    """Writes the dataset YAML of a folder, prints what was found, and returns the YAML's path.

    Args:
        folder: of the data.
        output: the YAML; None is `my_conf/datasets/FOLDER.yaml`.
        force: overwrite an existing one.

    Raises:
        DataError: nothing in the folder can be used.
        OutputError: the file exists.
        ConfigError: its name cannot be an option of Hydra's.
    """
    target = find_output_file(folder, output)
    refuse_existing(target.file, force)
    listing = list_volumes(folder)
    tried = ((d, verify_description(d, target.name)) for d in _describe(listing, target))
    working = next(((d, found) for d, found in tried if found is not None), None)
    if working is None:
        raise DataError("no description gives exactly the cases that were found", file=listing.root)
    description, (cohort, overrides) = working
    commands = target.commands(overrides)
    if description.table is not None:
        refuse_existing(description.table, force)
        write_table(description, description.table)
    with atomic_write(target.file) as temp:
        temp.write_text(description.text(commands), encoding="utf-8")
    _show_cases(description, cohort, listing)
    if overrides:
        say(f"labels that stand for several classes, or for any, need {ALLOW_SETS}")
    _show_files(description, target.file, commands)
    return target.file


def _describe(listing: FolderListing, target: OutputFile) -> Iterator[DatasetDescription]:
    """Descriptions of the folder: by patterns, where there are some, then by a table."""
    layout = _find_layout(listing)
    headers = read_headers(layout.cases)
    refused = {case: why for case, why in headers.refused}
    usable = [case for case in layout.cases if case not in refused]
    with progress("reading labels") as tick:
        counts = count_values([case.label.ref for case in usable], tick)
    unread = dict(counts.refused)
    refused |= {case: unread[case.label.ref] for case in usable if case.label.ref in unread}
    layout = _keep_usual_channels(_leave_out(layout, refused))
    description = DatasetDescription(
        folder=listing.root,
        name=re.sub(r"[^\w-]+", "_", target.name),
        layout=layout,
        patterns=find_patterns(layout.cases, listing.root),
        table=None,
        subject_rule=find_subject_rule(layout.cases, listing.root),
        headers=headers,
        counts=counts,
        value_names=name_values(counts, find_name_tables(listing.root)),
        refused=tuple((case.label.ref.path.name, why) for case, why in refused.items()),
    )
    if description.patterns is not None:
        yield description
    rule = find_subject_rule(layout.cases, listing.root, groups_are_folders=True)
    rule = replace(rule, expression=None)  # the table has a column for the subject
    yield replace(description, patterns=None, table=target.table, subject_rule=rule)


def _find_layout(listing: FolderListing) -> FolderLayout:
    """The first layout that gives cases.

    Raises:
        DataError: none does; lists what each layout expects.
    """
    first: FolderLayout | None = None
    for kind in _LAYOUTS:
        layout: FolderLayout | None = kind.find_cases(listing)
        if layout and layout.cases:
            return layout
        first = first or layout
    reasons = Counter(why for _, why in first.left_out) if first else Counter()
    names = [_relative(volume, listing.root) for volume in listing.volumes]
    found = [f"{count_of(len(names), 'volume')}: {shorten_list(names, 4)}"]
    found += [f"{n} x {why}" for why, n in reasons.items()]
    raise DataError(
        "no image with a label was found",
        file=listing.root,
        found="\n".join(found),
        expected="\n".join(kind.EXPECTED_FILES for kind in _LAYOUTS),
        fix="write a table of image and label paths, and table: in a copy of custom.yaml",
    )


def _keep_usual_channels(layout: FolderLayout) -> FolderLayout:
    """The cases with the most frequent number of channels; the others are left out."""
    usual = mode(len(case.channels) for case in layout.cases)
    if len(layout.channel_names or ()) != usual:
        layout = replace(layout, channel_names=None)
    other = {
        case: f"{len(case.channels)} channels instead of {usual}"
        for case in layout.cases
        if len(case.channels) != usual
    }
    return _leave_out(layout, other)


def _leave_out(layout: FolderLayout, refused: Mapping[FoundCase, str]) -> FolderLayout:
    """The layout without some cases, whose volumes are left out for the reasons given."""
    cases = tuple(case for case in layout.cases if case not in refused)
    left_out = [(volume, why) for case, why in refused.items() for volume in case.volumes]
    return replace(layout, cases=cases, left_out=(*layout.left_out, *left_out))


def _show_cases(description: DatasetDescription, cohort: Cohort, listing: FolderListing) -> None:
    """Prints what was found, and what is not used."""
    people = {case.subject for case in cohort.cases}
    count = f"{count_of(len(cohort.cases), 'case')} of {count_of(len(people), 'subject')}"
    channels = f", {cohort.channels} channels" if cohort.channels > 1 else ""
    say(f"found: {description.layout.title}")
    say(f"  {count}{channels}")
    for name, pattern in description.patterns.patterns.items() if description.patterns else ():
        images = pattern.mri if isinstance(pattern.mri, str) else ", ".join(pattern.mri)
        say(f"  {name}: {images} with {pattern.label or pattern.label_key}")
    table = description.value_names.table
    names = [f"{value} {name}" for value, name in description.value_names.names.items()]
    say(f"labels: {', '.join(names)}" + (f" (names from {table.path})" if table else ""))
    reasons: dict[str, list[str]] = {}
    for volume, why in description.layout.left_out:
        reasons.setdefault(why, []).append(_relative(volume, listing.root))
    for path, why in listing.unreadable:
        reasons.setdefault(why, []).append(path.relative_to(listing.root).as_posix())
    for why, files in reasons.items():
        say(f"not used, {why}: {shorten_list(files)}")
    if WITHOUT_IMAGE in reasons:
        say(
            "  to use a label that is left out: give it the name of its image, or write both into a "
            "table (table: in place of patterns:)"
        )


def _show_files(description: DatasetDescription, file: Path, commands: Sequence[str]) -> None:
    """Prints what the user should check, what was written, and the commands that use it."""
    if description.notes:
        say("unsure (marked '# unsure:' in the file):")
        for note in description.notes:
            say(f"  {note.key}: {note.text}")
    say(f"written: {file}")
    if description.table is not None:
        say(f"written: {description.table}")
    say("use it:")
    for command in commands:
        say(f"  {command}")
    say("PATH: a checkpoint, the folder of a run, a bundle, a URL or a name, such as hsf")


def _relative(volume: ListedVolume, root: Path) -> str:
    path = volume.ref.path.relative_to(root).as_posix()
    return f"{path}:{volume.ref.key}" if volume.ref.key else path
