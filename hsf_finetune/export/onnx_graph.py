"""A network as an ONNX graph that takes volumes of any size and gives probabilities."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hsf_finetune.config.settings import Preprocessing
from hsf_finetune.inference.engines import trace_onnx
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.padding import padded_shape
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.weights.files.checkpoint import META_KEY, NETWORK_PREFIX
from hsf_finetune.weights.files.onnx_file import UNUSED_KEY

INPUT, OUTPUT = "image", "probabilities"
_FIXED = ("swinunetr",)
_LARGEST_ERROR = 1e-2


class ProbabilityNetwork(nn.Module):
    """Probabilities of volumes of any size: pads, applies the network, removes the padding.

    As `volume_size`, `pad_to` and `remove_padding`, whose sizes are Python numbers, which tracing
    would freeze.

    Args:
        network: logits of volumes whose sizes are multiples of `divisor`.
        divisor: of the network.
        how: where volumes are padded, and up to what.
    """

    def __init__(self, network: nn.Module, divisor: Sequence[int], how: Preprocessing) -> None:
        super().__init__()
        self.network = network
        to_window, one = how.padded_size == "window", (1, 1, 1)
        steps = map(math.lcm, one if to_window else divisor, how.multiple_vox or one)
        least = padded_shape(how.window_vox if to_window else one, divisor)
        self.sizes = list(zip(steps, how.least_vox or one, least, strict=True))
        self.padding = how.padding
        self.mode = {"zeros": "constant"}.get(how.padding_mode, how.padding_mode)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z), prepared, to (B, classes, X, Y, Z), which sum to 1."""
        sizes = [torch.as_tensor(n, dtype=torch.int64) for n in image.shape[2:]]
        fronts: list[Any] = []
        widths: list[Any] = []
        for size, (step, shortest, least) in zip(sizes, self.sizes, strict=True):
            steps = torch.div(size.clamp_min(shortest) + step - 1, step, rounding_mode="floor")
            missing = (steps * step).clamp_min(least) - size
            extra = 1 if self.padding == "both" else 0
            half = torch.div(missing + extra, 2, rounding_mode="floor")
            front = 0 if self.padding == "end" else half
            fronts.append(front)
            widths = [front, missing - front, *widths]
        logits = self.network(functional.pad(image, widths, mode=self.mode))
        x, y, z = (slice(f, f + n) for f, n in zip(fronts, sizes, strict=True))
        probabilities: Tensor = logits[..., x, y, z].softmax(dim=1)
        return probabilities


def write_onnx(path: Path, anatomy: Anatomy, card: ModelCard) -> None:
    """Writes a network as one ONNX file, with free batch, x, y and z.

    Tensors keep their names, and the card is among the metadata: fine-tuning starts from the file.

    Args:
        path: the file.
        anatomy: the network.
        card: its description.
    """
    import onnx  # an extra

    network = copy.deepcopy(anatomy.network).cpu().float().eval()
    model = ProbabilityNetwork(network, anatomy.divisor, card.preprocessing).eval()
    example = torch.zeros(1, card.in_channels, *(2 * n + 1 for n in anatomy.divisor))
    trace_onnx(model, path, example, (INPUT, OUTPUT))
    described = {
        META_KEY: json.dumps(card.to_dict()),
        UNUSED_KEY: json.dumps(_unused(path, network)),
    }
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, described)
    onnx.save(graph, path)


def _unused(path: Path, network: nn.Module) -> dict[str, object]:
    """Name -> numbers of the tensors that no prediction needs, which are not part of the graph."""
    import onnx  # an extra

    names = {one.name for one in onnx.load(path).graph.initializer}
    state = {NETWORK_PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    # A tensor may have several names, of which the graph has one.
    known = {tensor.data_ptr() for name, tensor in state.items() if name in names}
    return {n: t.tolist() for n, t in state.items() if t.data_ptr() not in known}


def open_session(file: Path) -> Callable[[Tensor], Tensor]:
    """A function of a volume, (1, C, x, y, z) -> probabilities, (1, classes, x, y, z)."""
    import onnxruntime  # an extra

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def refuse_fixed_sizes(name: str) -> None:
    """Refuses networks whose graph is known to depend on the size of the image.

    Args:
        name: of the network, `models.name`.

    Raises:
        ConfigError: with the ways out.
    """
    if name in _FIXED:
        raise _fixed_sizes_error(name, "its windows depend on the size of the image")


def require_any_size(
    anatomy: Anatomy,
    card: ModelCard,
    probabilities: Callable[[Tensor], Tensor],
    how: Preprocessing,
) -> None:
    """Refuses a traced network that is another function at other sizes than it was traced at.

    Args:
        anatomy: the network.
        card: its description.
        probabilities: of the traced one, (1, C, x, y, z) -> (1, classes, x, y, z).
        how: where the traced one pads volumes, and up to what.

    Raises:
        ConfigError: with the ways out.
    """
    network = ProbabilityNetwork(anatomy.network.eval(), anatomy.divisor, how)
    size = [2 * n for n in anatomy.divisor]  # other than those of the examples
    image = torch.randn(1, card.in_channels, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            error = float((probabilities(image) - network(image)).abs().max())
    except Exception as failure:  # of the runtime, which names the operation
        raise _fixed_sizes_error(
            card.models.name, str(failure).strip().splitlines()[-1]
        ) from failure
    if error > _LARGEST_ERROR:
        raise _fixed_sizes_error(card.models.name, f"probabilities that differ by {error:.2g}")


def _fixed_sizes_error(name: str, found: str) -> ConfigError:
    return ConfigError(
        f"models={name} cannot be written as a graph: tracing would fix the size of the image",
        found=found,
        expected="a convolutional network, such as unet, dynunet, segresnet or nnunet",
        fix="--to checkpoint; or --to bundle, where MONAI has the network",
    )
