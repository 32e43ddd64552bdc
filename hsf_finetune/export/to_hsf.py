"""`--to hsf`: an ONNX model and the YAML with which HSF (PyPI `hsf`) runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio
import yaml

from hsf_finetune.data.preprocessing.orientation import axes_to, turn, turn_back
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.door import Door, refuse_unlike
from hsf_finetune.export.onnx_graph import open_session, refuse_fixed_sizes
from hsf_finetune.export.to_onnx import ONNX_PACKAGES, write_checked_onnx
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError

_MULTIPLE = 8
"""HSF pads crops to multiples of this."""
_MOST_CLASSES = 255
"""HSF writes channel numbers as uint8."""
_MODELS_PATH = "${hydra:runtime.config_sources.2.path}/../models"
"""The folder beside that of `--config-dir`, which is the second source after Hydra's own."""


def _check(model: TrainedModel) -> None:
    """Refuses what HSF cannot do: several channels, resampling, other padding than its own."""
    card, divisor = model.card, model.anatomy.divisor
    if card.in_channels != 1:
        names = card.preprocessing.channel_names
        raise ConfigError(
            "HSF gives a model one image, and this model needs several",
            found=f"{card.in_channels} input channels" + (f": {', '.join(names)}" if names else ""),
            expected="1",
            fix="--to bundle (MONAI) or --to onnx; or train a model of one channel",
        )
    refuse_unlike(
        card,
        "HSF",
        {
            "crop": ("none", "margins"),
            "fill_values": ("outside", "kept"),
            "intensity_first": (True, False),
        },
    )
    refuse_fixed_sizes(card.models.name)
    if any(n % _MULTIPLE for n in divisor):
        raise ConfigError(
            "HSF pads scans to multiples of 8, and this network was trained with other padding",
            found=f"multiples of {' x '.join(map(str, divisor))}",
            expected="a network that halves each axis at least three times, and only halves it",
            fix="train with models.strides=[2,2,2]; or --to onnx or --to bundle",
        )
    if len(card.classes) > _MOST_CLASSES:
        raise ConfigError("HSF writes at most 255 classes", found=len(card.classes))


def _write(model: TrainedModel, folder: Path) -> str:
    name, card = model.name, model.card
    # HSF runs every ONNX file of its folder, so the model has one of its own.
    file = folder / "models" / f"{name}.onnx"
    file.parent.mkdir()
    write_checked_onnx(file, model)
    config = {
        "ca_mode": "1/2/3",
        "models_path": _MODELS_PATH,
        "models": {
            file.name: {
                "url": "none, the model is in this folder",
                "xxh3_64": Checksum.of_file(file, "xxh3_64").digits,
            }
        },
        "segmentation": {"test_time_augmentation": False, "test_time_num_aug": 1},
    }
    target = folder / "config" / "segmentation" / f"{name}.yaml"
    with atomic_write(target) as temporary:
        remark = "# ca_mode must stay 1/2/3: HSF's other modes add up channels of its own classes\n"
        temporary.write_text(remark + yaml.safe_dump(config, sort_keys=False))
    rows = ["channel\tclass\tlabel_value"]
    rows += [f"{n}\t{c}\t{card.label_values[c]}" for n, c in enumerate(card.classes)]
    (folder / "labels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return _usage(model)


def _usage(model: TrainedModel) -> str:
    window = " x ".join(map(str, model.card.preprocessing.window_vox))
    return f"""In this folder:

```bash
pip install hsf onnxruntime
hsf --config-dir config segmentation={model.name} hardware=onnxruntime \\
    files.path=/FOLDER/OF/SCANS 'files.pattern=*.nii.gz' roiloc.contrast=t2
```

HSF locates the hippocampus (`roiloc.contrast=t1` for T1-weighted scans), and segments the
crops in both hemispheres. It writes the number of a channel as the label; `labels.tsv` says which
class and which label value of the training data that is.

- HSF deletes a model file that is not the one in the YAML: keep a copy before you edit either.
- HSF keeps empty margins, and fill values outside of the scan, which `predict` leaves out: give it
  scans without them. It takes a crop in one piece, `predict` one larger than {window} voxels in windows.
- Leave `segmentation.ca_mode` at 1/2/3, and `multispectrality` off."""


def _segment(model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> npt.NDArray[Any]:
    """The label values that HSF's channels stand for; its steps by the same library, torchio."""
    scan = channels[0]
    axes = axes_to(scan.affine)
    array = np.array(turn(scan.array, axes), dtype=np.float32)
    scalar: Any = torchio.ScalarImage
    image = scalar(tensor=torch.from_numpy(array)[None])
    steps = [torchio.ZNormalization(), torchio.EnsureShapeMultiple(_MULTIPLE)]
    subject = torchio.Compose(steps)(torchio.Subject(mri=image))
    file = folder / "models" / f"{model.name}.onnx"
    probabilities = open_session(file)(subject.mri.data[None].float())[0]
    subject.mri.set_data(probabilities)
    channel = subject.apply_inverse_transform(warn=False).mri.data.argmax(dim=0).numpy()
    values = np.array([model.card.label_values[name] for name in model.card.classes])
    return np.ascontiguousarray(turn_back(values[channel], axes))


DOOR = Door(
    "hsf", "HSF", ONNX_PACKAGES, _check, _write, _segment, "hsf", writers=frozenset({"onnx"})
)
