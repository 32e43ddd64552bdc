"""`--to nnunet`: a results folder that `nnUNetv2_predict` runs, for models=nnunet."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hsf_finetune.config.settings import NnUNetSettings
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.door import Door, read_labels, refuse_unlike, save_channels
from hsf_finetune.export.nnunet_files import (
    CONFIGURATION,
    PLANS,
    TRAINER,
    dataset_json,
    dataset_number,
    network_weights,
    patch_size,
    plans_json,
    scheme_of,
)
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.system.atomic_files import write_json
from hsf_finetune.system.errors import ConfigError

_LEAST_EQUAL = 0.99
"""nnU-Net rounds logits to 16 bits, and may pad otherwise than the model was trained."""
_AS_NNUNET = "preprocessing.padding=symmetric preprocessing.padded_size=window"


def _check(model: TrainedModel) -> None:
    """Refuses other networks, and what nnU-Net's preprocessing cannot do."""
    settings, how = model.card.models, model.card.preprocessing
    if not isinstance(settings, NnUNetSettings):
        raise ConfigError(
            "nnU-Net runs its own networks only",
            found=f"models={settings.name}",
            expected="models=nnunet",
            fix="--to bundle (MONAI), --to onnx, or --to hsf",
        )
    if set(settings.orientation) != set("RAS"):
        raise ConfigError(
            "nnU-Net's reader turns scans to RAS, and this network has reversed axes",
            found=f"models.orientation={settings.orientation}",
            expected="an order of R, A and S",
            fix="--to bundle (MONAI) or --to onnx",
        )
    if settings.decoder_kernels == "below":
        raise ConfigError(
            "nnU-Net v2 has no network whose decoder has v1's kernels",
            found="models.decoder_kernels=below",
            fix="--to bundle (MONAI) or --to onnx",
        )
    carried: dict[str, Sequence[Any]] = {
        "crop": ("none", "margins", "nonzero"),
        "fill_values": ("outside", "kept"),
        "padding": ("both", "symmetric", "end"),
        "padded_size": ("multiple", "window"),
        "intensity": (how.intensity,) if all(map(scheme_of, how.intensity)) else (),
        "intensity_first": (True, False) if how.spacing_mm is None else (True,),
        "spacing_mm": (how.spacing_mm,) if how.resampling == "nnunet" else (None,),
    }
    refuse_unlike(model.card, "nnU-Net", carried)


def _results(model: TrainedModel) -> Path:
    """The folder of the results, below that of the export, which may be the dataset's itself."""
    results = Path(f"{TRAINER}__{PLANS}__{CONFIGURATION}")
    return results if dataset_number(model.name) else Path(_dataset(model)) / results


def _dataset(model: TrainedModel) -> str:
    """What nnU-Net calls the dataset: as the folder of the export, where that is such a name."""
    return model.name if dataset_number(model.name) else f"Dataset999_{model.name}"


def _write(model: TrainedModel, folder: Path) -> str:
    results = folder / _results(model)
    (results / "fold_0").mkdir(parents=True)
    plans, dataset = plans_json(model, _dataset(model)), dataset_json(model)
    write_json(results / "plans.json", plans)
    write_json(results / "dataset.json", dataset)
    arguments = {"plans": plans, "configuration": CONFIGURATION, "fold": 0, "dataset_json": dataset}
    content = {
        "network_weights": network_weights(model),
        "trainer_name": TRAINER,
        "init_args": arguments,
        "inference_allowed_mirroring_axes": None,
        "current_epoch": 0,
    }
    torch.save(content, results / "fold_0" / "checkpoint_final.pth")
    patch = " x ".join(map(str, patch_size(model)))
    name, number = _dataset(model), dataset_number(_dataset(model))
    whole = name == model.name
    place = (
        f"The folder, `{name}`, can also lie" if whole else f"`{name}` can also be copied and lie"
    )
    resampled = model.card.preprocessing.spacing_mm is not None
    return f"""In this folder; scans are named `case_0000.nii.gz`, further channels `_0001` and so on:

```bash
pip install nnunetv2
nnUNetv2_predict_from_modelfolder -m {_results(model)} -f 0 --disable_tta -i SCANS -o SEGMENTATIONS
```

nnU-Net writes the channel below as the label. {place} in
the folder of `nnUNet_results`, for `nnUNetv2_predict -d {number} -c {CONFIGURATION} -f 0 --disable_tta`.

- nnU-Net pads scans to {patch} voxels, the larger half behind them, and takes larger ones in windows
  of that size. A model that was trained with `{_AS_NNUNET}`
  does so, too; of others, borders differ where a size is odd.
- Without `--disable_tta` nothing changes: mirroring was not trained, and is switched off.
{"" if resampled else "- Scans are not resampled (`no_resampling_hack` of nnunetv2 2.5 or later), as in training."}"""


def _segment(model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> npt.NDArray[Any]:
    """By nnU-Net's own predictor, from files to a file."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False,
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(folder / _results(model)), (0,))
    with tempfile.TemporaryDirectory(prefix="nnunet-proof-") as temporary:
        files = save_channels(channels, Path(temporary))
        reader = NibabelIOWithReorient()
        images, properties = reader.read_images(files)
        found = predictor.predict_single_npy_array(images, properties)
        target = Path(temporary) / "segmentation.nii.gz"
        reader.write_seg(found, str(target), properties)
        channel = read_labels(target)
    values = np.array([model.card.label_values[name] for name in model.card.classes])
    labels: npt.NDArray[Any] = values[channel]
    return labels


DOOR = Door(
    "nnunet",
    "nnU-Net",
    {"nnunetv2": "nnunetv2"},
    _check,
    _write,
    _segment,
    "nnunetv2",
    least_equal=_LEAST_EQUAL,
    advice=f"train with {_AS_NNUNET}, as nnU-Net pads",
)
