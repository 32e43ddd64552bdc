"""A network as an ONNX graph that takes volumes of any size and gives probabilities."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.system.errors import ConfigError

INPUT, OUTPUT = "image", "probabilities"
OPSET = 17
_FREE = {0: "batch", 2: "x", 3: "y", 4: "z"}


class ProbabilityNetwork(nn.Module):
    """Probabilities of volumes of any size: pads, applies the network, removes the padding.

    As `padded_shape`, `pad_to` and `remove_padding`, whose sizes are Python numbers, which tracing
    would freeze.

    Args:
        network: logits of volumes whose sizes are multiples of `divisor`.
        divisor: of the network.
        how: where volumes are padded, and up to what.
    """

    def __init__(self, network: nn.Module, divisor: Sequence[int], how: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.divisor = tuple(divisor)
        least = how.window_vox if how.padded_size == "window" else (1, 1, 1)
        self.least = padded_shape(least, divisor)
        self.padding = how.padding

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z), prepared, to (B, classes, X, Y, Z), which sum to 1."""
        sizes = [torch.as_tensor(n, dtype=torch.int64) for n in image.shape[2:]]
        fronts: list[Any] = []
        widths: list[Any] = []
        for size, divisor, least in zip(sizes, self.divisor, self.least, strict=True):
            blocks = torch.div(size + divisor - 1, divisor, rounding_mode="floor")
            missing = (blocks * divisor).clamp_min(least) - size
            extra = 1 if self.padding == "both" else 0
            half = torch.div(missing + extra, 2, rounding_mode="floor")
            front = 0 if self.padding == "end" else half
            fronts.append(front)
            widths = [front, missing - front, *widths]
        logits = self.network(functional.pad(image, widths))
        x, y, z = (slice(f, f + n) for f, n in zip(fronts, sizes, strict=True))
        probabilities: Tensor = logits[..., x, y, z].softmax(dim=1)
        return probabilities


def write_onnx(path: Path, anatomy: Anatomy, in_channels: int, how: Preprocessing) -> None:
    """Writes a network as one ONNX file, with free batch, x, y and z.

    Args:
        path: the file.
        anatomy: the network.
        in_channels: channels of the image.
        how: where volumes are padded, and up to what.
    """
    network = copy.deepcopy(anatomy.network).cpu().float().eval()
    model = ProbabilityNetwork(network, anatomy.divisor, how).eval()
    # The exporter merges tensors of equal value and then misses some of them (SwitchNorm's);
    # of a model in training mode it leaves them alone. The network itself stays in eval mode.
    model.training = True
    example = torch.zeros(1, in_channels, *(2 * n + 1 for n in anatomy.divisor))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=False,  # the newer exporter takes a minute for a small UNet
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: _FREE, OUTPUT: _FREE},
        )


def refuse_fixed_sizes(name: str) -> None:
    """Refuses networks whose graph depends on the size of the image.

    Args:
        name: of the network, `models.name`.

    Raises:
        ConfigError: with the ways out.
    """
    if name == "swinunetr":
        raise ConfigError(
            "models=swinunetr cannot be written as ONNX: its windows depend on the size of the "
            "image, which ONNX would fix",
            expected="a convolutional network, such as unet, dynunet, segresnet or nnunet",
            fix="--to bundle (MONAI) or --to checkpoint",
        )
