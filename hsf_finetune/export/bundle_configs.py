"""The configurations of a MONAI bundle: inference, evaluation, fine-tuning and metadata."""

from __future__ import annotations

import monai
import numpy as np
import torch

from hsf_finetune.export.bundle_transforms import (
    Config,
    compose_transforms,
    inferer,
    label_type,
    map_labels,
    preparation,
    transform,
)
from hsf_finetune.export.monai_networks import Definition, monai_definition
from hsf_finetune.export.trained_model import TrainedModel

SCHEMA = "meta_schema_20240725.json"
_SCHEMA_URL = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/" + SCHEMA
)
_SUFFIX = "/*.nii*"
_IMPORTS = [f"$import {name}" for name in ("collections", "glob", "os", "numpy as np")]


def _back(model: TrainedModel) -> Config:
    """From the network's grid to that of the file."""
    nearest = model.card.preprocessing.resampling == "monai_nearest"
    given: Config = {"transform": "@preprocessing", "orig_keys": "image"}
    return transform("Invertd", "pred", **given, nearest_interp=nearest)


_EVALUATOR = {
    "_target_": "SupervisedEvaluator",
    "device": "@device",
    "val_data_loader": "@dataloader",
    "network": "@network",
    "inferer": "@inferer",
    "postprocessing": "@postprocessing",
    "val_handlers": "@handlers",
}


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
    scans = f"$sorted(glob.glob(@dataset_dir + '{_SUFFIX}'))"
    folders = (
        f"$[sorted(glob.glob(f + '{_SUFFIX}')) for f in sorted(glob.glob(@dataset_dir + '/*/'))]"
    )
    saving = {
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "separate_folder": False,
        "resample": False,
        "output_dtype": label_type(model),
    }
    return {
        "imports": _IMPORTS,
        "bundle_root": ".",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/segmentations'",
        "datalist": folders if card.in_channels > 1 else scans,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        **network_definition(model),
        "network": "$@network_def.to(@device)",
        "preprocessing": compose_transforms(
            *preparation(card.preprocessing, model.anatomy.divisor)
        ),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': one} for one in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": inferer(card.preprocessing),
        "postprocessing": compose_transforms(
            transform("Activationsd", "pred", softmax=True),
            _back(model),
            transform("AsDiscreted", "pred", argmax=True),
            map_labels(model, "pred"),
            transform("SaveImaged", "pred", **saving),
        ),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "@ckpt_path",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": _EVALUATOR,
        "run": ["$@evaluator.run()"],
    }


def _labelled(several: bool) -> str:
    """Pairs of an image and a label; labels have the names of their images."""
    key = "os.path.dirname(i[0])" if several else "i"
    return (
        f"$[{{'image': i, 'label': glob.glob(@label_dir + '/' + os.path.basename({key}).split('.')[0]"
        " + '.nii*')[0]} for i in @datalist]"
    )


def _label_reading(model: TrainedModel) -> list[Config]:
    """The steps from a file of labels to class numbers."""
    reading = [transform("LoadImaged", "label"), transform("EnsureChannelFirstd", "label")]
    return [*reading, map_labels(model, "label", back=True)]


def evaluation_config(model: TrainedModel) -> Config:
    """configs/evaluate.json, after inference.json: Dice on the scans' own grid."""
    count = len(model.card.classes)
    return {
        "imports": _IMPORTS,
        "label_dir": "$@bundle_root + '/labels'",
        "dataset": {
            "_target_": "Dataset",
            "data": _labelled(model.card.in_channels > 1),
            "transform": compose_transforms(*_label_reading(model), "@preprocessing"),
        },
        "postprocessing": compose_transforms(
            transform("Activationsd", "pred", softmax=True),
            _back(model),
            transform("AsDiscreted", "pred", argmax=True, to_onehot=count),
            transform("AsDiscreted", "label", to_onehot=count),
        ),
        "key_metric": {
            "val_mean_dice": {
                "_target_": "MeanDice",
                "include_background": False,
                "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
            }
        },
        "evaluator": _EVALUATOR | {"key_val_metric": "@key_metric"},
        "run": ["$@evaluator.run()", "$print('mean Dice', @evaluator.state.metrics)"],
    }


def training_config(model: TrainedModel) -> Config:
    """configs/train.json, after inference.json: fine-tunes on parts of scans."""
    reporting = {
        "_target_": "StatsHandler",
        "tag_name": "loss",
        "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
    }
    saving = {
        "_target_": "CheckpointSaver",
        "save_dir": "$@bundle_root + '/models'",
        "save_dict": {"model": "@network"},
        "save_final": True,
        "final_filename": "fine_tuned.pt",
    }
    return {
        "imports": _IMPORTS,
        "label_dir": "$@bundle_root + '/labels'",
        "epochs": 50,
        "learning_rate": 0.0003,
        "patch_vox": [64, 64, 64],
        "dataset": _training_data(model),
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
        "train_handlers": [*inference_config(model)["handlers"], reporting, saving],
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


def _training_data(model: TrainedModel) -> Config:
    """Images and labels, prepared alike, and a random part of each."""
    spatial = ("Orientationd", "CropForegroundd", "Flipd", "DivisiblePadd", "SpatialPadd")
    both = ("image", "label")
    steps = [
        step | {"keys": both} if step["_target_"] in spatial else step
        for step in preparation(model.card.preprocessing, model.anatomy.divisor)
    ]
    nearest = {"keys": both, "mode": ["bilinear", "nearest"]}
    steps = [step | nearest if step["_target_"] == "Spacingd" else step for step in steps]
    return {
        "_target_": "CacheDataset",
        "data": _labelled(model.card.in_channels > 1),
        "transform": compose_transforms(
            *_label_reading(model),
            transform("EnsureTyped", "label", dtype="$torch.float32"),
            *steps,
            transform("SpatialPadd", both, spatial_size="@patch_vox"),
            transform("RandSpatialCropd", both, roi_size="@patch_vox", random_size=False),
        ),
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
