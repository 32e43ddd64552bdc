"""Segmentations as a BIDS dataset of derivatives."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsf_finetune.data.volumes.read_volume import stem
from hsf_finetune.inference.formats.colour_tables import bids_text
from hsf_finetune.labels.label_colours import LabelRow
from hsf_finetune.system.atomic_files import locked, write_json
from hsf_finetune.system.errors import OutputError
from hsf_finetune.system.version import __version__

DESCRIPTION = "dataset_description.json"
TABLE = "dseg.tsv"

_NAME = "hsf_finetune"
_DESC = "finetuned"
_KEPT = ("sub", "ses", "task", "acq", "ce", "rec", "run", "echo", "part", "chunk")
"""Entities that a segmentation takes over, in their order."""
_ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")


@dataclass(frozen=True)
class BidsName:
    """The name of a scan.

    Args:
        entities: such as sub -> 01.
        suffix: such as T2w.
    """

    entities: dict[str, str]
    suffix: str

    @classmethod
    def read(cls, scan: Path) -> BidsName | None:
        """The name of a scan's file or folder; None if it is not one of BIDS."""
        *parts, suffix = stem(scan).split("_")
        found = [match for part in parts if (match := _ENTITY.fullmatch(part))]
        entities = {str(match[1]): str(match[2]) for match in found}
        is_one = len(entities) == len(parts) and parts[:1] == [f"sub-{entities.get('sub')}"]
        return cls(entities, suffix) if is_one and suffix.isalnum() else None

    def segmentation(self, kind: str = "dseg") -> Path:
        """The path of its segmentation below the derivatives' folder.

        `space` is the scan's own grid. `desc` also holds what a segmentation has no entity for,
        such as the side of a crop (`hemi`), so that two scans never get one name.
        """
        folders = [f"{key}-{self.entities[key]}" for key in ("sub", "ses") if key in self.entities]
        kept = [f"{key}-{self.entities[key]}" for key in _KEPT if key in self.entities]
        space = self.entities.get("space", self.suffix)
        others = [v for key, v in self.entities.items() if key not in (*_KEPT, "space")]
        desc = _DESC + "".join(value[:1].upper() + value[1:] for value in others)
        name = "_".join([*kept, f"space-{space}", f"desc-{desc}", f"{kind}.nii.gz"])
        return Path(*folders, "anat", name)


def check_dataset(root: Path, rows: Sequence[LabelRow], overwrite: bool) -> None:
    """Refuses a folder that is another dataset, or has other labels.

    Raises:
        OutputError: it is one.
    """
    file = root / DESCRIPTION
    if file.exists() and not _made_by_us(_read(file)):
        raise OutputError(
            "the folder is another BIDS dataset",
            file=root,
            found=f"a {DESCRIPTION} that {_NAME} did not write",
            fix=f"give a folder of its own: -o {root}/derivatives/{_NAME}",
        )
    check_same_text(root / TABLE, bids_text(rows), overwrite)


def check_same_text(file: Path, text: str, overwrite: bool) -> None:
    """Refuses a file that exists with another text.

    Raises:
        OutputError: it does.
    """
    if not overwrite and file.exists() and file.read_text(encoding="utf-8") != text:
        raise OutputError(
            "the folder holds segmentations with other labels or colours",
            file=file,
            fix="give another folder with -o, or replace the table by --overwrite",
        )


def describe_dataset(root: Path, scan: Path) -> str:
    """Writes or completes `dataset_description.json`, and returns the BIDS address of a scan.

    Args:
        root: folder of the derivatives.
        scan: file that was segmented.
    """
    source = _source_root(scan)
    address = source.as_uri()
    links = _links(root)
    if address not in links.values():
        with locked(root / DESCRIPTION):
            links = _links(root)  # another process may have added some
            if address not in links.values():
                links[f"source{len(links) + 1}"] = address
                write_json(root / DESCRIPTION, _description(links))
    name = next(name for name, link in links.items() if link == address)
    return f"bids:{name}:{scan.absolute().relative_to(source).as_posix()}"


def write_sidecar(segmentation: Path, source: str, extra: dict[str, Any] | None = None) -> None:
    """Writes the JSON file beside a segmentation.

    Args:
        segmentation: its path, which ends in `.nii.gz`.
        source: BIDS address of the scan.
        extra: further keys.
    """
    file = segmentation.with_name(segmentation.name.removesuffix(".nii.gz") + ".json")
    about = {"Sources": [source], "SpatialReference": source, **(extra or {})}
    write_json(file, about)


def _links(root: Path) -> dict[str, str]:
    return dict(_read(root / DESCRIPTION).get("DatasetLinks", {}))


def _description(links: dict[str, str]) -> dict[str, Any]:
    return {
        "Name": f"Segmentations by {_NAME}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": _NAME, "Version": __version__}],
        "SourceDatasets": [{"URL": link} for link in links.values()],
        "DatasetLinks": links,
    }


def _source_root(scan: Path) -> Path:
    """The dataset of a scan: the nearest folder with a description, else that above `sub-`."""
    folders = scan.absolute().parents
    above = [folder.parent for folder in folders if folder.name.startswith("sub-")]
    known = (folder for folder in folders if (folder / DESCRIPTION).is_file())
    return next(known, above[-1] if above else folders[0])


def _made_by_us(content: dict[str, Any]) -> bool:
    made = content.get("GeneratedBy")
    return isinstance(made, list) and any(
        isinstance(one, dict) and one.get("Name") == _NAME for one in made
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
