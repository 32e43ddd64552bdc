"""`--to onnx`: one ONNX file, for programs that prepare the images themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hsf_finetune.data.preprocessing.load_case import prepare_channels
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.door import Door
from hsf_finetune.export.onnx_graph import (
    INPUT,
    OPSET,
    OUTPUT,
    refuse_fixed_sizes,
    write_onnx,
)
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.networks.volumetric import volume_logits

ONNX_PACKAGES = {"onnx": "onnx", "onnxruntime": "onnxruntime"}


def _check(model: TrainedModel) -> None:
    refuse_fixed_sizes(model.card.models.name)


def _write(model: TrainedModel, folder: Path) -> str:
    file, card = f"{model.name}.onnx", model.card
    write_onnx(folder / file, model.anatomy, card.in_channels, card.preprocessing)
    window = " x ".join(map(str, card.preprocessing.window_vox))
    return f"""`{file}` (ONNX opset {OPSET}) maps `{INPUT}`, float32 of shape (batch, {card.in_channels}, x, y, z), to
`{OUTPUT}`, (batch, {len(card.classes)}, x, y, z). Every size is allowed: padding is part of the graph.

```python
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
probabilities = session.run(None, {{"{INPUT}": image}})[0]
```

The image is prepared as below says, the padding excepted. `predict` takes volumes above {window}
voxels apart into windows; in one piece their segmentation may differ."""


def open_session(file: Path) -> Callable[[Tensor], Tensor]:
    """A function of a volume, (1, C, x, y, z) -> probabilities, (1, classes, x, y, z)."""
    import onnxruntime  # an extra

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def _segment(model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> npt.NDArray[Any]:
    how = model.card.preprocessing
    predict = open_session(folder / f"{model.name}.onnx")
    image, grid = prepare_channels(channels, how)
    if all(n <= window for n, window in zip(image.shape[1:], how.window_vox, strict=True)):
        probabilities = predict(image[None])[0]
    else:
        probabilities = volume_logits(
            lambda part: predict(part).log().clamp_min(-100),
            image[None],
            model.anatomy.divisor,
            how.window_vox,
            how.padding,
            how.padded_size,
        )[0].softmax(0)
    values = np.array([model.card.label_values[name] for name in model.card.classes])
    found: npt.NDArray[Any] = values[grid.classes_to_file(probabilities)]
    return found


DOOR = Door(
    "onnx",
    "ONNX runtimes",
    ONNX_PACKAGES,
    _check,
    _write,
    _segment,
    "onnx",
    writers=frozenset({"onnx"}),
)
