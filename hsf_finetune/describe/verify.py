"""Whether a description works: composed and discovered, it gives exactly the cases found."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.describe.layouts.base_layout import place_of
from hsf_finetune.describe.yaml_text import DatasetDescription
from hsf_finetune.system.atomic_files import write_csv
from hsf_finetune.system.errors import UserError

ALLOW_SETS = "models.use_forgiving_loss=True"
"""What labels that stand for several classes, or for any, need."""


def verify_description(
    description: DatasetDescription, name: str
) -> tuple[Cohort, tuple[str, ...]] | None:
    """Composes the YAML, by its name, and discovers its cases.

    Returns:
        The cohort, and the overrides that it needs beside `datasets=`; None if its files or
        subjects are not those that were found.

    Raises:
        UserError: a description by a table does not work.
    """
    for overrides in ((), (ALLOW_SETS,)):
        try:
            cohort = _discover(description, name, overrides)
        except UserError:
            if description.table is not None and overrides:
                raise
            continue
        return (cohort, overrides) if _has_its_cases(cohort, description) else None
    return None


def write_table(description: DatasetDescription, file: Path) -> None:
    """Lists the cases as CSV; paths are absolute, so that the file can be moved.

    Raises:
        OutputError: the file cannot be written.
    """
    cases, subjects = description.layout.cases, description.subject_rule.subjects
    further = [f"image{number}" for number in range(2, len(cases[0].channels) + 1)]
    rows = [
        (*(str(volume.ref) for volume in case.volumes), subject)
        for case, subject in zip(cases, subjects, strict=True)
    ]
    write_csv(file, ["image", *further, "label", "subject"], rows)


def _has_its_cases(cohort: Cohort, description: DatasetDescription) -> bool:
    """Whether files, keys in them and subjects are those that were found."""
    subjects = description.subject_rule.subjects
    # In order of their images, so that no second list of all files is needed.
    wanted = sorted(
        zip(description.layout.cases, subjects, strict=True),
        key=lambda one: place_of(one[0].channels[0].ref),
    )
    found = sorted(cohort.cases, key=lambda case: place_of(case.images[0]))
    return len(found) == len(wanted) and all(
        case.subject == subject
        and [*map(place_of, case.volumes)] == [place_of(volume.ref) for volume in one.volumes]
        for case, (one, subject) in zip(found, wanted, strict=True)
    )


def _discover(description: DatasetDescription, name: str, overrides: Sequence[str]) -> Cohort:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "datasets" / f"{name}.yaml"
        file.parent.mkdir()
        if description.table is not None:
            description = replace(description, table=file.with_suffix(".csv"))
            write_table(description, file.with_suffix(".csv"))
        file.write_text(description.text(()), encoding="utf-8")
        settings = compose("finetune", [f"datasets={name}", *overrides], folder)
        return discover(settings.datasets, settings.models)
