"""Runs HSF on crops, in HSF's own environment: python run_hsf.py EXPORT CROP OUTPUT [CROP OUTPUT].

Its engine, preprocessing, segmentation and writing are HSF's; its localisation is left out.
"""

# mypy: ignore-errors

import shutil
import sys
from pathlib import Path

from hsf.engines import get_inference_engines
from hsf.factory import predict
from hsf.segment import save_prediction
from hydra import compose, initialize_config_module

export, *files = map(Path, sys.argv[1:])
with initialize_config_module(version_base="1.1", config_module="hsf.conf"):
    config = compose(
        "config",
        overrides=[
            f"hydra.searchpath=[file://{export}/config]",
            f"segmentation={export.name}",
            f"segmentation.models_path={export}/models",
            "hardware=onnxruntime",
            "hardware.engine_settings.execution_providers=[CPUExecutionProvider]",
            f"files.path={files[0].parent}",
            "files.pattern=*",
        ],
    )
hardware = config.hardware
for crop, output in zip(files[::2], files[1::2], strict=True):
    # A generator, which HSF makes for each scan as well.
    engines = get_inference_engines(
        config.segmentation.models_path, hardware.engine, hardware.engine_settings
    )
    _, hard = predict(crop, None, engines, config)
    save_prediction(mri=crop, prediction=hard, suffix="seg")
    shutil.move(crop.with_name(crop.name.replace(".nii.gz", "_seg.nii.gz")), output)
