"""`hsf-finetune init FOLDER`: look, describe, prove that the description works, and write it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hsf_finetune.describe.label_geometry import look_at_headers
from hsf_finetune.describe.label_names import find_lookups
from hsf_finetune.describe.label_values import count_values, name_values
from hsf_finetune.describe.layouts import bids_layout, by_name_layout, nnunet_layout
from hsf_finetune.describe.layouts.base_layout import Item, Layout, some
from hsf_finetune.describe.list_volumes import Listing, list_volumes
from hsf_finetune.describe.output_file import Target, find_target
from hsf_finetune.describe.patterns import patterns_of
from hsf_finetune.describe.subject_rules import find_subjects
from hsf_finetune.describe.verify import SETS, Proof, prove, write_table
from hsf_finetune.describe.yaml_text import Description
from hsf_finetune.system.console import progress, say
from hsf_finetune.system.errors import DataError, OutputError
from hsf_finetune.system.files import atomic_write

_LAYOUTS = (nnunet_layout, bids_layout, by_name_layout)


def describe_folder(folder: Path, output: Path | None = None, force: bool = False) -> Path:
    """Writes the dataset YAML of a folder, and says what was found.

    Args:
        folder: of the data.
        output: the YAML; None is `my_conf/datasets/FOLDER.yaml`.
        force: overwrite an existing one.

    Raises:
        DataError: nothing in the folder can be used.
        OutputError: the file exists.
        ConfigError: its name cannot be an option of Hydra's.
    """
    target = find_target(folder, output)
    _refuse_existing(target.file, force)
    listing = list_volumes(folder)
    described = _described(listing, target, table := target.file.with_suffix(".csv").absolute())
    proof = prove(described, target.name)
    if proof is None and described.table is None:
        proof = prove(_by_table(described, table), target.name)
    if proof is None:
        raise DataError("no description gives back the cases that were found", file=listing.root)
    if proof.described.table is not None:
        _refuse_existing(table, force)
        write_table(proof.described, table)
    commands = target.commands(proof.overrides)
    with atomic_write(target.file) as temp:
        temp.write_text(proof.described.text(commands), encoding="utf-8")
    _say(proof, listing, target.file, commands)
    return target.file


# -------------------------------------------------------------------- internals
def _refuse_existing(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise OutputError(
            "the file exists already",
            file=file,
            fix="choose another one with -o, or overwrite it with --force",
        )


def _described(listing: Listing, target: Target, table: Path) -> Description:
    """What the folder holds, by patterns if they can say it."""
    layout = _layout(listing)
    geometry = look_at_headers(layout.cases)
    refused = {case: why for case, why in geometry.refused}
    usable = [case for case in layout.cases if case not in refused]
    with progress("reading labels") as tick:
        counts = count_values([case.label.ref for case in usable], tick)
    unread = dict(counts.refused)
    refused |= {case: unread[case.label.ref] for case in usable if case.label.ref in unread}
    kept = tuple(case for case in layout.cases if case not in refused)
    gone = [(item, why) for case, why in refused.items() for item in case.items]
    layout = replace(layout, cases=kept, left_out=(*layout.left_out, *gone))
    layout = _same_channels(layout)
    described = Description(
        folder=listing.root,
        name=re.sub(r"[^\w-]+", "_", target.name),
        layout=layout,
        patterns=patterns_of(layout.cases, listing.root),
        table=None,
        subjects=find_subjects(layout.cases, listing.root),
        geometry=geometry,
        counts=counts,
        naming=name_values(counts, find_lookups(listing.root)),
        refused=tuple((case.label.ref.path.name, why) for case, why in refused.items()),
    )
    return described if described.patterns else _by_table(described, table)


def _by_table(described: Description, table: Path) -> Description:
    """The same with a table in place of patterns."""
    subjects = find_subjects(described.layout.cases, described.folder, told_inside=True)
    return replace(
        described,
        patterns=None,
        table=table,
        subjects=replace(subjects, rule=None),
    )


def _layout(listing: Listing) -> Layout:
    """The first layout that gives cases.

    Raises:
        DataError: none does; says what each looked for.
    """
    first: Layout | None = None
    for kind in _LAYOUTS:
        look: Callable[[Listing], Layout | None] = kind.look
        found = look(listing)
        if found and found.cases:
            return found
        first = first or found
    reasons = Counter(why for _, why in first.left_out) if first else Counter()
    seen = [_place(item, listing.root) for item in listing.items]
    raise DataError(
        "no image with a label was found",
        file=listing.root,
        found="\n".join(
            [
                f"{len(seen)} volumes: {some(seen, 4)}",
                *(f"{n} x {why}" for why, n in reasons.items()),
            ]
        ),
        expected="\n".join(f"{kind.LOOKED_FOR}" for kind in _LAYOUTS),
        fix="write a table of image and label paths, and table: in a copy of custom.yaml",
    )


def _same_channels(layout: Layout) -> Layout:
    """The cases with the usual number of channels; the others are left out."""
    counts = Counter(len(case.channels) for case in layout.cases)
    usual = counts.most_common(1)[0][0]
    odd = [case for case in layout.cases if len(case.channels) != usual]
    gone = [(i, f"{len(c.channels)} channels instead of {usual}") for c in odd for i in c.items]
    kept = tuple(case for case in layout.cases if case not in odd)
    names = layout.channel_names
    if names is not None and len(names) != usual:
        names = None
    return replace(layout, cases=kept, left_out=(*layout.left_out, *gone), channel_names=names)


def _say(proof: Proof, listing: Listing, file: Path, commands: Sequence[str]) -> None:
    """What was found, what is left out, what is doubtful, and how to go on."""
    described, cohort = proof.described, proof.cohort
    layout, names = described.layout, described.naming.names
    people = len({case.subject for case in cohort.cases})
    channels = f", {cohort.channels} channels" if cohort.channels > 1 else ""
    say(f"found: {layout.title}")
    say(f"  {len(cohort.cases)} cases of {people} subjects{channels}")
    for pattern in described.patterns.patterns if described.patterns else ():
        label = pattern.label or pattern.label_key
        say(f"  {pattern.name}: {', '.join(pattern.mri)} with {label}")
    source = described.naming.source
    say(
        "labels: "
        + ", ".join(f"{value} {name}" for value, name in names.items())
        + (f" (names from {source.path})" if source else "")
    )
    reasons: dict[str, list[str]] = {}
    for item, why in layout.left_out:
        reasons.setdefault(why, []).append(_place(item, described.folder))
    for path, why in listing.unreadable:
        reasons.setdefault(why, []).append(path.relative_to(described.folder).as_posix())
    for why, files in reasons.items():
        say(f"not used, {why}: {some(files)}")
    if proof.overrides:
        say(f"labels that stand for several classes, or for any, need {SETS}")
    if described.doubts:
        say("unsure (marked '# unsure:' in the file):")
        for doubt in described.doubts:
            say(f"  {doubt.key}: {doubt.text}")
    say(f"written: {file}")
    if described.table is not None:
        say(f"written: {described.table}")
    say("use it:")
    for line in commands:
        say(f"  {line}")


def _place(item: Item, root: Path) -> str:
    path = item.ref.path.relative_to(root).as_posix()
    return f"{path}:{item.ref.key}" if item.ref.key else path
