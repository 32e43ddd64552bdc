"""`--to checkpoint`: weights and card alone, for this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.door import Door
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.weights.files.checkpoint import META_KEY, NETWORK_PREFIX

_FILE = "model.ckpt"


def _write(model: TrainedModel, folder: Path) -> str:
    state = model.anatomy.network.state_dict()
    # Copies: a tensor that is part of a larger one would take all of that into the file.
    tensors = {NETWORK_PREFIX + name: tensor.cpu().clone() for name, tensor in state.items()}
    torch.save({"state_dict": tensors, META_KEY: model.card.to_dict()}, folder / _FILE)
    return f"""In this folder:

```bash
pip install hsf-finetune
hsf-finetune predict {_FILE} scan.nii.gz -o segmentations
hsf-finetune finetune datasets=mine models=pretrained finetuning.pretrained={_FILE}
```

The file holds the weights and the model card, in plain types: no state of an optimiser."""


def _segment(model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> npt.NDArray[Any]:
    reloaded = Predictor.load(folder / _FILE, device="cpu")
    images = [(volume.array, volume.affine) for volume in channels]
    return reloaded.predict(images).labels


DOOR = Door(
    "checkpoint",
    "hsf_finetune",
    {"torch": "torch"},
    lambda model: None,
    _write,
    _segment,
    "hsf-finetune",
    has_card=True,
)
