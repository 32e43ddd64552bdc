"""Runs HSF on one crop, in HSF's own environment: python run_hsf.py EXPORT NAME CROP OUTPUT.

Everything is HSF's: its configuration with that of the export, its check of the model's hash,
its engine, preprocessing, segmentation and writing. Only the localisation is left out, and the
network is cut off, from which HSF would fetch a model whose hash is wrong.
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

export, name, crop, output = sys.argv[1:]


def refuse_download(*_: object, **__: object) -> None:
    raise RuntimeError("HSF wanted to download the model: its hash is not that of the YAML")


requests.get = refuse_download
with initialize_config_module(version_base="1.1", config_module="hsf.conf"):
    config = compose(
        "config",
        overrides=[
            f"hydra.searchpath=[file://{export}/config]",
            f"segmentation={name}",
            f"segmentation.models_path={export}/models",
            "hardware=onnxruntime",
            "hardware.engine_settings.execution_providers=[CPUExecutionProvider]",
            f"files.path={Path(crop).parent}",
            "files.pattern=*",
        ],
    )
chosen = config.segmentation
fetch_models(chosen.models_path, chosen.models)
engines = get_inference_engines(
    chosen.models_path, config.hardware.engine, config.hardware.engine_settings
)
_, hard = predict(Path(crop), None, engines, config)
save_prediction(mri=Path(crop), prediction=hard, suffix="seg")
shutil.move(Path(crop).with_name(Path(crop).name.replace(".nii.gz", "_seg.nii.gz")), output)
