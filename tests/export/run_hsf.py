"""Runs HSF on crops, in HSF's own environment: python run_hsf.py EXPORT CROP OUTPUT ...

Everything is HSF's: its configuration with that of the export, its check of the model's hash,
its engine, preprocessing, segmentation and writing. Only the localisation is left out, and the
network is cut off, from which HSF would fetch a model whose hash is wrong.
"""

# mypy: ignore-errors

import functools
import shutil
import sys
from pathlib import Path
from typing import Any

import requests
from hsf.engines import get_inference_engines
from hsf.factory import predict
from hsf.fetch_models import fetch_models
from hsf.segment import save_prediction
from hydra import compose, initialize_config_module


def refuse_download(*_: object, **__: object) -> None:
    raise RuntimeError("HSF wanted to download the model: its hash is not that of the YAML")


@functools.cache
def configure(export: Path, folder: Path) -> Any:
    with initialize_config_module(version_base="1.1", config_module="hsf.conf"):
        config = compose(
            "config",
            overrides=[
                f"hydra.searchpath=[file://{export}/config]",
                f"segmentation={export.name}",
                f"segmentation.models_path={export}/models",
                "hardware=onnxruntime",
                "hardware.engine_settings.execution_providers=[CPUExecutionProvider]",
                f"files.path={folder}",
                "files.pattern=*",
            ],
        )
    fetch_models(config.segmentation.models_path, config.segmentation.models)
    return config


requests.get = refuse_download
files = [*map(Path, sys.argv[1:])]
for export, crop, output in zip(files[::3], files[1::3], files[2::3], strict=True):
    config = configure(export, crop.parent)
    hardware = config.hardware
    # A generator, which HSF makes for each scan as well.
    engines = get_inference_engines(
        config.segmentation.models_path, hardware.engine, hardware.engine_settings
    )
    soft, hard = predict(crop, None, engines, config)
    # HSF's maps of uncertainty, and the merging of its `ca_mode`, need probabilities.
    assert float((soft.sum(1) - 1).abs().max()) < 1e-3
    save_prediction(mri=crop, prediction=hard, suffix="seg")
    shutil.move(crop.with_name(crop.name.replace(".nii.gz", "_seg.nii.gz")), output)
