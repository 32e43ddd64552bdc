"""What runs a network: PyTorch, or its graph in ONNX Runtime or OpenVINO."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor, nn

from hsf_finetune.system.atomic_files import atomic_write, cache_folder
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.signal_stack import kept_signal_stack
from hsf_finetune.system.version import __version__

EngineName = Literal["auto", "torch", "torch-bf16", "onnxruntime", "openvino", "openvino-bf16"]
"""Those that end in -bf16 compute with 8 bits of precision, the others with 24."""
GRAPH_ENGINES = ("onnxruntime", "openvino", "openvino-bf16")
"""Those that run the network's graph in ONNX."""
Network = Callable[[Tensor], Tensor]
"""(1, C, x, y, z) -> logits, (1, classes, x, y, z)."""

_MOST_GRAPHS = 8
"""Graphs that are kept in the cache."""
OPSET = 17
_FIX = "pip install 'hsf-finetune[engines]'; --engine torch needs nothing"


@dataclass(frozen=True)
class Engine:
    """A network, ready to run.

    Args:
        name: as in `--engine NAME`.
        version: of its library, and the precision.
        logits: runs the network.
    """

    name: str
    version: str
    logits: Network


def torch_engine(network: nn.Module, device: torch.device, name: str = "torch") -> Engine:
    """PyTorch; `torch-bf16` with autocast to bfloat16.

    Raises:
        ConfigError: the device has no arithmetic for bfloat16, and would be much slower.
    """

    def logits(image: Tensor) -> Tensor:
        # Each time, since the network may have been trained or moved meanwhile.
        weight = next(network.parameters(), None)
        if network.training or weight is None or weight.device != device:
            network.to(device).eval()
        found: Tensor = network(image)
        return found

    if name == "torch":
        return Engine(name, f"torch {torch.__version__}, float32", logits)
    if not computes_bf16(device):
        raise ConfigError(
            "this processor has no arithmetic for bfloat16, and would be many times slower with it",
            found=f"--engine {name} on {device}",
            expected="a GPU, or a CPU with avx512_bf16 or AMX",
            fix="--engine auto",
        )

    def rounded_logits(image: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return logits(image).float()

    return Engine(name, f"torch {torch.__version__}, bfloat16", rounded_logits)


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has arithmetic for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    tests = (
        getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")
    )
    return device.type == "cpu" and any(test() for test in tests if test)


def is_installed(name: str) -> bool:
    """Whether the library of an engine can be imported."""
    return importlib.util.find_spec(name.removesuffix("-bf16")) is not None


def check_is_installed(name: str) -> None:
    """Refuses an engine whose library is missing.

    Raises:
        ConfigError: with the way to install it.
    """
    if not is_installed(name):
        raise ConfigError(f"--engine {name} needs a library that is not installed", fix=_FIX)


def open_graph(name: str, graph: Path) -> Engine:
    """A graph in ONNX Runtime or OpenVINO, on the CPU, with as many threads as PyTorch.

    Raises:
        ConfigError: the library is not installed, or the CPU has no arithmetic for bfloat16.
    """
    check_is_installed(name)
    return _open_onnxruntime(graph) if name == "onnxruntime" else _open_openvino(name, graph)


def _open_onnxruntime(graph: Path) -> Engine:
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def logits(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])

    return Engine("onnxruntime", f"onnxruntime {onnxruntime.__version__}, float32", logits)


def _open_openvino(name: str, graph: Path) -> Engine:
    import openvino  # an extra

    core = openvino.Core()
    bf16 = name == "openvino-bf16"
    if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConfigError(
            "this CPU has no arithmetic for bfloat16",
            found=f"--engine {name}",
            expected="a CPU with avx512_bf16 or AMX",
            fix="--engine openvino",
        )
    # Without the hint OpenVINO rounds to bfloat16 wherever the CPU can.
    wanted = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    with kept_signal_stack():
        compiled: Any = core.compile_model(graph, "CPU", wanted)

    def logits(image: Tensor) -> Tensor:
        return torch.from_numpy(compiled(image.numpy())[0])

    version = openvino.__version__.split("-")[0]
    return Engine(name, f"openvino {version}, {'bfloat16' if bf16 else 'float32'}", logits)


# ------------------------------------------------------------------ graphs
def trace_onnx(
    model: nn.Module, path: Path, example: Tensor, names: tuple[str, str] = ("image", "logits")
) -> None:
    """Writes a model of volumes as one ONNX file, with free batch, x, y and z.

    Args:
        model: (B, C, x, y, z) -> (B, classes, x, y, z), in eval mode.
        path: the file.
        example: an input.
        names: of the input and the output.
    """
    free = {0: "batch", 2: "x", 3: "y", 4: "z"}
    # The exporter merges tensors of equal value and then misses some of them (SwitchNorm's);
    # of a model in training mode it leaves them alone. The layers stay in eval mode.
    training, model.training = model.training, True
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                path,
                dynamo=False,  # the newer exporter takes a minute for a small UNet
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,  # which gives tensors other names
                opset_version=OPSET,
                input_names=[names[0]],
                output_names=[names[1]],
                dynamic_axes=dict.fromkeys(names, free),
            )
    finally:
        model.training = training


class GraphCache:
    """The graph of one model in the user's cache, and what is known of its engines.

    Args:
        tensors: its weights, by their names.
        description: of its network.
    """

    def __init__(self, tensors: Mapping[str, Tensor], description: object) -> None:
        self._folder = cache_folder() / "engines"
        self._key = _key_of(tensors, description)

    def graph(self, network: Callable[[], tuple[nn.Module, Tensor]]) -> Path:
        """The file of the graph, which is written where it does not exist.

        Args:
            network: gives the network and an input.
        """
        path = self._folder / f"{self._key}.onnx"
        if path.exists():
            path.touch()
            return path
        for old in sorted(self._folder.glob("*.onnx"), key=lambda p: p.stat().st_mtime):
            if len([*self._folder.glob("*.onnx")]) >= _MOST_GRAPHS:
                old.unlink(missing_ok=True)
        with atomic_write(path) as temporary:
            model, example = network()
            trace_onnx(model, temporary, example)
        return path

    def read(self, name: str) -> Mapping[str, Any] | None:
        """What is known of an engine; None where nothing is."""
        try:
            known: dict[str, Any] = json.loads(self._note(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return known if self._note(name).with_name(f"{self._key}.onnx").exists() else None

    def write(self, name: str, known: Mapping[str, Any]) -> None:
        """Keeps what is known of an engine."""
        with atomic_write(self._note(name)) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")

    def _note(self, name: str) -> Path:
        # Processors and versions round differently.
        version = metadata.version(name.removesuffix("-bf16"))
        processor = torch.backends.cpu.get_cpu_capability().lower()
        return self._folder / f"{self._key}_{name}_{version}_{processor}.json"


def _key_of(tensors: Mapping[str, Tensor], description: object) -> str:
    """What a graph depends on: weights, network, and the programs that make it."""
    digest = xxhash.xxh3_128(f"{__version__} {torch.__version__} {description}".encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
