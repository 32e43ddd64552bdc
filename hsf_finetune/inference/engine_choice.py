"""Which engine runs a model: one whose result was compared with PyTorch's."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hsf_finetune.inference.engines import (
    GRAPH_ENGINES,
    Engine,
    EngineName,
    GraphCache,
    Network,
    check_is_installed,
    computes_bf16,
    is_installed,
    open_graph,
    torch_engine,
)
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.system import console
from hsf_finetune.system.errors import ConfigError

MOST_DIFFERING = 0.001
"""Share of the segmented voxels that may differ from PyTorch's; that of an export's proof, too."""
_WITHOUT_GRAPH = ("swinunetr",)
"""Networks whose windows depend on the size of the image, which a graph would fix."""
_MOST_TRIES = 3
"""Scans in which nothing is found, before an engine is given up."""
_SHORT_S = 1.0
"""A shorter call is timed once more: a first one prepares much that later ones find ready."""

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EngineComparison:
    """An engine beside PyTorch on one scan.

    Args:
        version: of the engine.
        segmented: voxels that either of them gives a class other than the background.
        differing: voxels with different classes.
        speed_up: how many times as fast as PyTorch it is.
        shape: of the scan.
        divisor: of the network, which need not be built to know it.
    """

    version: str
    segmented: int
    differing: int
    speed_up: float
    shape: tuple[int, ...]
    divisor: tuple[int, ...]

    @property
    def share(self) -> float:
        """Share of the segmented voxels that differ."""
        return self.differing / self.segmented

    def line(self) -> str:
        """The comparison in a sentence."""
        size = "x".join(map(str, self.shape))
        return (
            f"{self.share:.3%} of the segmented voxels differ from torch's ({self.differing:,} of "
            f"{self.segmented:,}, in a scan of {size}), {self.speed_up:.1f} times as fast"
        )


class EngineChoice:
    """Runs a model with the engine that was asked for.

    The first scan in which something is found is segmented by PyTorch, too. For `auto` an engine
    is used that is not slower, and whose result differs in no more than `MOST_DIFFERING`; what was
    found is kept in the user's cache, so that PyTorch's network is not even built the next time.

    Args:
        wanted: name of the engine.
        device: where PyTorch runs; graphs run on the CPU.
        card: of the model.
        anatomy: gives its network.
        tensors: its weights, if they are known without the network.

    Raises:
        ConfigError: the engine cannot run here, or cannot run this network.
    """

    def __init__(
        self,
        wanted: EngineName,
        device: torch.device,
        card: ModelCard,
        anatomy: Callable[[], Anatomy],
        tensors: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._wanted, self._device, self._anatomy = wanted, device, anatomy
        self._channels, self._name = card.in_channels, _candidate(wanted, device, card)
        self._running: Engine | None = None
        self._tries = 0
        self._known: EngineComparison | None = None
        if self._name in GRAPH_ENGINES:
            weights = anatomy().network.state_dict() if tensors is None else tensors
            self._cache = GraphCache(weights, (card.models, card.in_channels))
            if known := self._cache.read(self._name):
                self._known = EngineComparison(**{n: _tuple(v) for n, v in known.items()})

    @property
    def needs_network(self) -> bool:
        """Whether PyTorch's network will run."""
        return self._known is None or not self._is_used(self._known)

    @property
    def is_compared(self) -> bool:
        """Whether no scan has to be segmented by PyTorch, too, to decide on an engine."""
        return self._name == "torch" or bool(self._running or self._known)

    @property
    def divisor(self) -> Sequence[int]:
        """Sizes the network needs multiples of."""
        return self._anatomy().divisor if self.needs_network else self._known.divisor  # type: ignore[union-attr]

    def network(self) -> Network:
        """The network as it runs now: before a comparison, in PyTorch."""
        if self._running is None and self._known:
            self._run(self._known)
        return (self._running or self._torch()).logits

    def segment(self, predict: Callable[[Network], Labels]) -> Labels:
        """What a function finds with the network.

        Args:
            predict: gives class indices, (X, Y, Z), with a network.
        """
        if self._running is None:
            return self._start(predict)
        return predict(self._running.logits)

    def _start(self, predict: Callable[[Network], Labels]) -> Labels:
        """The same while the engine is not yet decided on."""
        if self._name == "torch":
            self._running = self._torch()
        elif self._known:
            self._run(self._known)
        if self._running:
            return predict(self._running.logits)
        reference = self._torch()
        expected, torch_s = _timed(predict, reference)
        try:
            engine = self._open()
            found, engine_s = _timed(predict, engine)
        except Exception as error:
            if self._wanted != "auto":
                raise
            console.say(f"engine: torch; {self._name} cannot run the network: {_first_line(error)}")
            self._running = self._torch()
            return expected
        segmented = int(np.count_nonzero(expected | found))
        if not segmented:
            self._tries += 1
            if self._tries == _MOST_TRIES:
                console.say(f"engine: torch; nothing was found to compare {self._name} by")
                self._running = self._torch()
            return expected
        if min(torch_s, engine_s) < _SHORT_S:
            torch_s = min(torch_s, _timed(predict, reference)[1])
            engine_s = min(engine_s, _timed(predict, engine)[1])
        differing, ratio = int(np.count_nonzero(expected != found)), torch_s / max(engine_s, 1e-6)
        known = EngineComparison(
            engine.version, segmented, differing, ratio, found.shape, tuple(self._anatomy().divisor)
        )
        if self._name in GRAPH_ENGINES:
            self._cache.write(self._name, asdict(known))
        self._run(known, engine)
        return found if self._is_used(known) else expected

    def _run(self, known: EngineComparison, engine: Engine | None = None) -> None:
        """Decides by a comparison, and says so."""
        used = self._is_used(known)
        self._running = (engine or self._open()) if used else self._torch()
        if used:
            outcome = f"{known.version}: {known.line()}; --engine torch gives torch's own"
        else:
            outcome = f"torch, since {self._name} is not as good: {known.line()}"
        console.say(f"engine: {outcome}")

    def _is_used(self, known: EngineComparison) -> bool:
        return self._wanted != "auto" or (known.share <= MOST_DIFFERING and known.speed_up >= 1)

    def _torch(self) -> Engine:
        return torch_engine(self._anatomy().network, self._device)

    def _open(self) -> Engine:
        if self._name not in GRAPH_ENGINES:
            return torch_engine(self._anatomy().network, self._device, self._name)

        def network() -> tuple[nn.Module, torch.Tensor]:
            anatomy = self._anatomy()
            example = torch.zeros(1, self._channels, *(2 * n for n in anatomy.divisor))
            return copy.deepcopy(anatomy.network).cpu().float().eval(), example

        return open_graph(self._name, self._cache.graph(network))


# -------------------------------------------------------------------- internals
def _candidate(wanted: EngineName, device: torch.device, card: ModelCard) -> str:
    """The engine to compare with PyTorch: what is known to be the fastest, for `auto`."""
    fixed_sizes = card.models.name in _WITHOUT_GRAPH
    if wanted != "auto":
        if wanted in GRAPH_ENGINES and device.type != "cpu":
            raise ConfigError(
                f"--engine {wanted} runs on the CPU", found=device, fix="--device cpu"
            )
        if wanted in GRAPH_ENGINES and fixed_sizes:
            raise ConfigError(
                f"models={card.models.name} cannot run as a graph: its windows depend on the size "
                "of the image, which the graph would fix",
                found=f"--engine {wanted}",
                fix="--engine torch",
            )
        if wanted in GRAPH_ENGINES:
            check_is_installed(wanted)
        return wanted
    if device.type != "cpu":
        return "torch"
    for name in () if fixed_sizes else ("openvino", "onnxruntime"):
        if is_installed(name) and is_installed("onnx"):
            return name
    return "torch-bf16" if computes_bf16(device) else "torch"


def _timed(predict: Callable[[Network], Labels], engine: Engine) -> tuple[Labels, float]:
    start = time.perf_counter()
    return predict(engine.logits), time.perf_counter() - start


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
