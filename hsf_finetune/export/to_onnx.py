"""`--to onnx`: one ONNX file, for programs that prepare the images themselves."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.preprocessing.load_case import prepare_channels
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.export.door import Door
from hsf_finetune.export.onnx_graph import (
    INPUT,
    OUTPUT,
    open_session,
    refuse_fixed_sizes,
    require_any_size,
    write_onnx,
)
from hsf_finetune.export.trained_model import TrainedModel
from hsf_finetune.inference.engines import OPSET
from hsf_finetune.networks.volumetric import volume_logits
from hsf_finetune.system.errors import ConfigError

ONNX_PACKAGES = {"onnx": "onnx", "onnxruntime": "onnxruntime"}


def _check(model: TrainedModel) -> None:
    """Refuses graphs that would depend on the size of the image."""
    refuse_fixed_sizes(model.card.models.name)
    if model.card.preprocessing.padding_mode == "reflect":
        raise ConfigError(
            "ONNX reflects a scan once at most, and this model's padding may be wider",
            found="padding_mode: reflect",
            expected="padding_mode: zeros or replicate",
            fix="--to checkpoint; or train with preprocessing.padding_mode=zeros",
        )


def _write(model: TrainedModel, folder: Path) -> str:
    file, card = f"{model.name}.onnx", model.card
    write_checked_onnx(folder / file, model)
    window = " x ".join(map(str, card.preprocessing.window_vox))
    return f"""`{file}` (ONNX opset {OPSET}) maps `{INPUT}`, float32 of shape (batch, {card.in_channels}, x, y, z), to
`{OUTPUT}`, (batch, {len(card.classes)}, x, y, z). Every size is allowed: padding is part of the graph.

```python
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
probabilities = session.run(None, {{"{INPUT}": image}})[0]
```

The image is prepared as below says, the padding excepted. `predict` takes volumes larger than
{window} voxels apart into windows; in one piece their segmentation may differ."""


def write_checked_onnx(file: Path, model: TrainedModel) -> None:
    """Writes the file, and refuses a graph that is another function at other sizes.

    Raises:
        ConfigError: it is.
    """
    write_onnx(file, model.anatomy, model.card)
    if importlib.util.find_spec("onnxruntime"):
        how = model.card.preprocessing
        require_any_size(model.anatomy, model.card, open_session(file), how)


def _segment(model: TrainedModel, folder: Path, channels: Sequence[Volume]) -> npt.NDArray[Any]:
    predict = open_session(folder / f"{model.name}.onnx")
    image, grid = prepare_channels(channels, model.card.preprocessing)
    how = model.card.preprocessing
    if all(n <= window for n, window in zip(image.shape[1:], how.window_vox, strict=True)):
        probabilities = predict(image[None])[0]
    else:
        probabilities = volume_logits(
            lambda part: predict(part).log().clamp_min(-100),
            image[None],
            model.anatomy.divisor,
            how,
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
