"""The proof that a description works: composed and discovered, it gives the cases it is of."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.describe.yaml_text import Description
from hsf_finetune.system.errors import UserError
from hsf_finetune.system.files import write_csv

SETS = "models.use_forgiving_loss=True"
"""What labels that stand for several classes, or for any, need."""

_Refs = tuple[tuple[Path, str | None], ...]


@dataclass(frozen=True)
class Proof:
    """A description that works.

    Args:
        described: the description.
        cohort: what discovery makes of it.
        overrides: that it needs beside `datasets=`.
    """

    described: Description
    cohort: Cohort
    overrides: tuple[str, ...]


def prove(described: Description, name: str) -> Proof | None:
    """Composes the YAML and discovers its cases; None where they are not those that were found.

    Args:
        described: the description.
        name: of the YAML.

    Raises:
        UserError: a description by a table does not work.
    """
    for overrides in ((), (SETS,)):
        try:
            cohort = _discovered(described, name, overrides)
        except UserError:
            if described.table is not None and overrides:
                raise
            continue
        wanted = {
            _refs([item.ref for item in case.items]): subject
            for case, subject in zip(described.layout.cases, described.subjects.ids, strict=True)
        }
        found = {_refs(case.volumes): case.subject for case in cohort.cases}
        return Proof(described, cohort, overrides) if found == wanted else None
    return None


def write_table(described: Description, file: Path) -> None:
    """Lists the cases as CSV; paths are absolute, so that the file can be moved.

    Raises:
        OutputError: the file cannot be written.
    """
    count = len(described.layout.cases[0].channels)
    images = [f"image{number}" if number > 1 else "image" for number in range(1, count + 1)]
    rows = [
        (*(str(item.ref) for item in case.items), subject)
        for case, subject in zip(described.layout.cases, described.subjects.ids, strict=True)
    ]
    write_csv(file, [*images, "label", "subject"], rows)


# -------------------------------------------------------------------- internals
def _discovered(described: Description, name: str, overrides: Sequence[str]) -> Cohort:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "datasets" / f"{name}.yaml"
        file.parent.mkdir()
        if described.table is not None:
            described = replace(described, table=file.with_suffix(".csv"))
            write_table(described, file.with_suffix(".csv"))
        file.write_text(described.text(()), encoding="utf-8")
        settings = compose("finetune", [f"datasets={name}", *overrides], folder)
        return discover(settings.datasets, settings.models)


def _refs(refs: Sequence[VolumeRef]) -> _Refs:
    """Files and keys, without the geometry that a YAML adds."""
    return tuple((ref.path, ref.key) for ref in refs)
