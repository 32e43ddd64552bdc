"""nnU-Net's plans as options of a configuration: the network, and how scans are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hsf_finetune.config.settings import PreprocessingSettings
from hsf_finetune.export.export_folder import refuse_existing
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.weights.sources.nnunet_plans import json_object, read_plans


def write_settings(plans: Path, output: Path, configuration: str, orientation: str) -> str:
    """Writes the network and the preprocessing of nnU-Net's plans as options of a configuration.

    Args:
        plans: a plans.json.
        output: folder for `--config-dir`, which may exist; its files must not.
        configuration: of the plans, such as `3d_fullres`.
        orientation: of the images as they are stored, see `nnunet_plans.read_plans`.

    Returns:
        The command that trains with them.

    Raises:
        WeightsError: the plans cannot be read, or are of a 2D network or a cascade.
        OutputError: a file exists.
    """
    found = read_plans(json_object(plans), configuration, orientation, plans)
    how, name = found.preprocessing, f"{found.origin['dataset']}_{configuration}"
    given = how.model_dump(mode="json") | {
        "spacing": (how.spacing_mm and [*how.spacing_mm]) or "data"
    }
    prepared = {key: given[key] for key in PreprocessingSettings.model_fields if key in given}
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "models": ("nnunet", dict(found.models)),
        "preprocessing": ("hsf", {"rules": "hsf", **prepared}),
    }
    files = {group: output / group / f"{name}.yaml" for group in options}
    for file in files.values():
        refuse_existing(file)
    for group, (base, values) in options.items():
        content = {"defaults": [base, "_self_"], **values}
        with atomic_write(files[group]) as temporary:
            text = f"# From {configuration} of {plans.name} of {found.origin['dataset']}; further keys: {base}.yaml\n"
            temporary.write_text(text + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    window = "[" + ",".join(map(str, how.window_vox)) + "]"
    return (
        f"python train.py --config-dir {output} datasets=NAME models={name} preprocessing={name} "
        f"datasets.patch_vox={window} datasets.window_vox={window}"
    )
