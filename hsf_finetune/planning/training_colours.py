"""The colours of classes, from the tables that lie beside the training data."""

from __future__ import annotations

from pathlib import Path

from hsf_finetune.config.settings import DatasetsSettings
from hsf_finetune.data.discovery.cases import Cohort
from hsf_finetune.describe.label_names import read_name_table
from hsf_finetune.labels.label_colours import Colour
from hsf_finetune.system.errors import DataError


def training_colours(settings: DatasetsSettings, cohort: Cohort) -> dict[str, Colour]:
    """Class -> its colour in the table `lut:` of the first dataset that has one for it.

    Raises:
        DataError: a table is missing, or has no colours.
    """
    base = Path(settings.main_path).expanduser().resolve()
    protocols = {case.dataset: case.protocol for case in cohort.cases}
    found: dict[str, Colour] = {}
    for name, dataset in settings.datasets.items():
        if dataset.lut is None or name not in protocols:
            continue
        file = base / dataset.path / dataset.lut
        table = read_name_table(file)
        if table is None or not table.colours:
            raise DataError(
                "the dataset's lut: is no table of colours",
                file=file,
                found=None if file.is_file() else "no such file",
                expected="a BIDS dseg.tsv with the columns index, name and color, a FreeSurfer "
                "colour table or ITK-SNAP's label descriptions",
                fix=f"correct lut: of the dataset '{name}', or remove it",
            )
        for value, names in protocols[name].sets:
            if value in table.colours and len(names) == 1:
                (own,) = names
                found.setdefault(own, table.colours[value])
    return {n: colour for n, colour in found.items() if n != cohort.classes.names[0]}
