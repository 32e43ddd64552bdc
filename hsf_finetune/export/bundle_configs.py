"""The configurations of a MONAI bundle: inference, evaluation, fine-tuning and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import monai
import numpy as np
import torch

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.config.settings.preprocessing_settings import (
    Intensity,
    MinMaxIntensity,
    PercentileIntensity,
    WindowIntensity,
    ZScoreIntensity,
)
from hsf_finetune.export.monai_networks import Definition, monai_definition
from hsf_finetune.export.trained_model import TrainedModel

SCHEMA = "meta_schema_20240725.json"
_SCHEMA_URL = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/" + SCHEMA
)
_SUFFIX = "/*.nii*"
Config = dict[str, Any]


def _step(name: str, keys: str | Sequence[str] = "image", **arguments: Any) -> Config:
    return {"_target_": name, "keys": keys, **arguments}


def _compose(*steps: Config | str) -> Config:
    return {"_target_": "Compose", "transforms": list(steps)}


def preparation(how: Preprocessing, divisor: Sequence[int]) -> list[Config]:
    """The steps from files to the network's input.

    MONAI pads the larger half at the back; between two flips that is the front, as here.

    Args:
        how: orientation, crop, intensity and padding.
        divisor: of the network.
    """
    steps = [
        _step("LoadImaged"),
        _step("EnsureChannelFirstd"),
        _step("EnsureTyped", dtype="$torch.float32"),
        _step("Orientationd", axcodes=how.orientation),
    ]
    if how.crop in ("nonzero", "positive"):
        chosen = "$lambda x: x > 0" if how.crop == "positive" else "$lambda x: x != 0"
        crop: Config = {"source_key": "image", "select_fn": chosen, "margin": how.crop_margin_vox}
        steps.append(_step("CropForegroundd", **crop, allow_smaller=False))
    steps += normalisation(how.intensity[0])
    # A network that halves needs two voxels at its deepest level.
    least = [2 * n if n > 1 else 1 for n in divisor]
    method = "symmetric" if how.padding == "both" else "end"
    padding = [
        _step("DivisiblePadd", k=list(divisor), method=method),
        _step("SpatialPadd", spatial_size=least, method=method),
    ]
    if how.padding == "both":
        flip = _step("Flipd", spatial_axis=[0, 1, 2])
        padding = [flip, *padding, flip]
    return steps + padding


def normalisation(intensity: Intensity) -> list[Config]:
    """The step that does to intensities what `normalise_intensity` does."""
    if isinstance(intensity, ZScoreIntensity):
        given: Config = {"subtrahend": intensity.mean, "divisor": intensity.std}
        known = {name: value for name, value in given.items() if value is not None}
        step = _step("NormalizeIntensityd", channel_wise=True, **known)
        return [step | ({"nonzero": True} if intensity.mask == "nonzero" else {})]
    if isinstance(intensity, WindowIntensity):
        ends: Config = {"a_min": intensity.low, "a_max": intensity.high}
        to: Config = {"b_min": intensity.to[0], "b_max": intensity.to[1], "clip": intensity.clip}
        return [_step("ScaleIntensityRanged", **ends, **to)]
    if isinstance(intensity, PercentileIntensity):
        ends = {"lower": intensity.low, "upper": intensity.high, "channel_wise": True}
        to = {"b_min": intensity.to[0], "b_max": intensity.to[1], "clip": intensity.clip}
        return [_step("ScaleIntensityRangePercentilesd", **ends, **to)]
    if isinstance(intensity, MinMaxIntensity):
        ends = {"minv": intensity.to[0], "maxv": intensity.to[1], "channel_wise": True}
        return [_step("ScaleIntensityd", **ends)]
    return []


def _classes_to_values(model: TrainedModel, keys: str, back: bool = False) -> Config:
    """From class numbers to label values, or back."""
    card = model.card
    values = [int(card.label_values[name]) for name in card.classes]
    kind = np.result_type(np.uint8, *(np.min_scalar_type(value) for value in values)).name
    numbers = list(range(len(values)))
    pair = (values, numbers) if back else (numbers, values)
    return _step("MapLabelValued", keys, orig_labels=pair[0], target_labels=pair[1], dtype=kind)


def network_definition(model: TrainedModel) -> Definition:
    """The network: MONAI's class, or the TorchScript beside the weights."""
    sizes = {"in_channels": model.card.in_channels, "out_channels": len(model.card.classes)}
    scripted = {
        "network_def": {
            "_target_": "torch.jit.load",
            "f": "$@bundle_root + '/models/model.ts'",
            "map_location": "cpu",
        }
    }
    return sizes | (monai_definition(model.card.models) or scripted)


def inference_config(model: TrainedModel) -> Config:
    """configs/inference.json: segments the scans of a folder."""
    card = model.card
    several = card.in_channels > 1
    scans = f"$sorted(glob.glob(@dataset_dir + '{_SUFFIX}'))"
    folders = (
        f"$[sorted(glob.glob(f + '{_SUFFIX}')) for f in sorted(glob.glob(@dataset_dir + '/*/'))]"
    )
    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False}
    saving = {
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "separate_folder": False,
        "resample": False,
        "output_dtype": "$np.uint16",
    }
    return {
        "imports": ["$import collections", "$import glob", "$import numpy as np"],
        "bundle_root": ".",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/segmentations'",
        "datalist": folders if several else scans,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        **network_definition(model),
        "network": "$@network_def.to(@device)",
        "preprocessing": _compose(*preparation(card.preprocessing, model.anatomy.divisor)),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': one} for one in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": _compose(
            _step("Activationsd", "pred", softmax=True),
            _step("Invertd", "pred", **back),
            _step("AsDiscreted", "pred", argmax=True),
            _classes_to_values(model, "pred"),
            _step("SaveImaged", "pred", **saving),
        ),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "@ckpt_path",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _labelled(several: bool) -> str:
    """Pairs of an image and a label; labels have the names of their images."""
    key = "os.path.dirname(i[0])" if several else "i"
    return (
        f"$[{{'image': i, 'label': glob.glob(@label_dir + '/' + os.path.basename({key}).split('.')[0]"
        " + '.nii*')[0]} for i in @datalist]"
    )


def evaluation_config(model: TrainedModel) -> Config:
    """configs/evaluate.json, after inference.json: Dice on the scans' own grid."""
    count = len(model.card.classes)
    reading = [_step("LoadImaged", "label"), _step("EnsureChannelFirstd", "label")]
    numbers = _classes_to_values(model, "label", back=True)
    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False}
    return {
        "imports": ["$import collections", "$import glob", "$import os", "$import numpy as np"],
        "label_dir": "$@bundle_root + '/labels'",
        "dataset": {
            "_target_": "Dataset",
            "data": _labelled(model.card.in_channels > 1),
            "transform": _compose(*reading, numbers, "@preprocessing"),
        },
        "postprocessing": _compose(
            _step("Activationsd", "pred", softmax=True),
            _step("Invertd", "pred", **back),
            _step("AsDiscreted", "pred", argmax=True, to_onehot=count),
            _step("AsDiscreted", "label", to_onehot=count),
        ),
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice",
                "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "key_val_metric": "@key_metric",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()", "$print('mean Dice', @evaluator.state.metrics)"],
    }


def training_config(model: TrainedModel) -> Config:
    """configs/train.json, after inference.json: fine-tunes on whole scans."""
    several = model.card.in_channels > 1
    reading = [_step("LoadImaged", "label"), _step("EnsureChannelFirstd", "label")]
    divisor = model.anatomy.divisor
    both = ("image", "label")
    label_steps = [
        _step("EnsureTyped", "label", dtype="$torch.float32"),
        *(
            one | {"keys": "label"}
            for one in preparation(model.card.preprocessing, divisor)
            if one["_target_"] in ("Orientationd", "Flipd", "DivisiblePadd", "SpatialPadd")
        ),
    ]
    return {
        "imports": ["$import collections", "$import glob", "$import os", "$import numpy as np"],
        "label_dir": "$@bundle_root + '/labels'",
        "epochs": 50,
        "learning_rate": 0.0003,
        "patch_vox": "$[64, 64, 64]",
        "dataset": {
            "_target_": "CacheDataset",
            "data": _labelled(several),
            "transform": _compose(
                *reading,
                _classes_to_values(model, "label", back=True),
                "@preprocessing",
                *label_steps,
                _step("SpatialPadd", both, spatial_size="@patch_vox"),
                _step("RandSpatialCropd", both, roi_size="@patch_vox", random_size=False),
            ),
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": True,
        },
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "$@network.parameters()",
            "lr": "@learning_rate",
        },
        "train_handlers": [
            *inference_config(model)["handlers"],
            {
                "_target_": "StatsHandler",
                "tag_name": "loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            },
            {
                "_target_": "CheckpointSaver",
                "save_dir": "$@bundle_root + '/models'",
                "save_dict": {"model": "@network"},
                "save_final": True,
                "final_filename": "fine_tuned.pt",
            },
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": "@epochs",
            "device": "@device",
            "train_data_loader": "@dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "inferer": "@inferer",
            "train_handlers": "@train_handlers",
        },
        "run": ["$@trainer.run()"],
    }


def metadata(model: TrainedModel) -> Config:
    """configs/metadata.json, which follows MONAI's schema of 25 July 2024."""
    card, origin = model.card, model.origin
    names = card.preprocessing.channel_names or [f"channel {n}" for n in range(card.in_channels)]
    sizes = [f"{n}*n" for n in model.anatomy.divisor]
    tensor = {"type": "image", "spatial_shape": sizes, "dtype": "float32", "is_patch_data": False}
    image = tensor | {
        "format": "magnitude",
        "num_channels": card.in_channels,
        "value_range": [-10, 10],
        "channel_def": {str(n): name for n, name in enumerate(names)},
    }
    pred = tensor | {
        "format": "segmentation",
        "num_channels": len(card.classes),
        "value_range": [0, 1],
        "channel_def": {str(n): name for n, name in enumerate(card.classes)},
    }
    cited = origin.get("citation")
    return {
        "schema": _SCHEMA_URL,
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported"},
        "monai_version": monai.__version__,
        "pytorch_version": str(torch.__version__).partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5", "pytorch-ignite": "0.4.11"},
        "name": model.name,
        "task": f"Segmentation of {', '.join(card.classes[1:])}",
        "description": f"A {card.models.name} for volumes, fine-tuned with hsf_finetune.",
        "authors": "not recorded",
        "copyright": f"of the source weights: {origin.get('licence', 'not recorded')}",
        "intended_use": "research",
        "references": [str(cited)] if cited else [],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }
