"""Runs HSF on one crop, in HSF's own environment: python run_hsf.py CROP FOLDER EXPORT...

Everything is HSF's: its configuration with that of the export, its check of the model's hash,
its engine, preprocessing, segmentation and writing. Only the localisation is left out, and the
network is cut off, from which HSF would fetch a model whose hash is wrong. Writes
FOLDER/EXPORT.nii.gz for each export.
"""

import shutil
import sys
from pathlib import Path

import requests
from hsf.engines import get_inference_engines
from hsf.factory import predict
from hsf.fetch_models import fetch_models
from hsf.segment import save_prediction
from hydra import compose, initialize_config_module

crop, folder, *exports = map(Path, sys.argv[1:])


def refuse_download(*_: object, **__: object) -> None:
    raise RuntimeError("HSF wanted to download the model: its hash is not that of the YAML")


requests.get = refuse_download
for export in exports:
    with initialize_config_module(version_base="1.1", config_module="hsf.conf"):
        config = compose(
            "config",
            overrides=[
                f"hydra.searchpath=[file://{export}/config]",
                f"segmentation={export.name}",
                f"segmentation.models_path={export}/models",
                "hardware=onnxruntime",
                "hardware.engine_settings.execution_providers=[CPUExecutionProvider]",
                f"files.path={crop.parent}",
                "files.pattern=*",
            ],
        )
    chosen = config.segmentation
    fetch_models(chosen.models_path, chosen.models)
    engines = get_inference_engines(
        chosen.models_path, config.hardware.engine, config.hardware.engine_settings
    )
    soft, hard = predict(crop, None, engines, config)
    # HSF's maps of uncertainty, and the merging of its `ca_mode`, need probabilities.
    assert float((soft.sum(1) - 1).abs().max()) < 1e-3
    save_prediction(mri=crop, prediction=hard, suffix="seg")
    written = crop.with_name(crop.name.replace(".nii.gz", "_seg.nii.gz"))
    shutil.move(written, folder / f"{export.name}.nii.gz")
