"""A trained network that segments scans on their own grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hsf_finetune.data.preprocessing.load_case import prepare_channels
from hsf_finetune.data.preprocessing.voxel_grid import VoxelGrid, highest_class, last_region
from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.inference.engine_choice import EngineChoice
from hsf_finetune.inference.engines import GRAPH_ENGINES, EngineName, Network
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.quality_model import SurenessSums
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.inference.views import View, ViewKind, views_of
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.networks.volumetric import volume_logits, volume_slabs
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError, WeightsError
from hsf_finetune.weights.files.checkpoint import Checkpoint
from hsf_finetune.weights.files.read_checkpoint import read_checkpoint
from hsf_finetune.weights.sources.exported_folder import weights_of_export
from hsf_finetune.weights.sources.read_source import find_checkpoint, is_of_other_tool
from hsf_finetune.weights.transfer.tensor_pairs import with_all_names

_SLICES = 16
"""Planes of a volume whose probabilities are computed at once."""


class Predictor(ScanModel):
    """Segments scans with a network.

    Args:
        anatomy: the network.
        card: the meaning of its channels, and how its inputs are prepared.
        device: where to run it.
        engine: what runs it, see `EngineChoice`.
        tensors: its weights; None are those of the network. With them the network may be given
            as a function, which is called where it is needed.
    """

    def __init__(
        self,
        anatomy: Anatomy | Callable[[], Anatomy],
        card: ModelCard,
        device: torch.device,
        engine: EngineName = "torch",
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(card)
        self._given = anatomy
        self._views: tuple[View, ...] = (View(),)
        self._decide = last_region if card.regions else highest_class
        self._device = device
        self._engines = EngineChoice(engine, device, card, lambda: self.anatomy, tensors)
        if self._engines.needs_network:
            self._given = self.anatomy

    def __repr__(self) -> str:
        classes = ", ".join(self.card.classes)
        channels = count_of(self.card.in_channels, "channel")
        return f"Predictor({self.card.models.name}, {channels} -> {classes}, {self._device})"

    @cached_property
    def anatomy(self) -> Anatomy:
        """The network."""
        return self._given if isinstance(self._given, Anatomy) else self._given()

    @classmethod
    def load(
        cls,
        weights: str | Path,
        checkpoint: Literal["best", "last"] = "best",
        device: str = "auto",
        settings: Sequence[str] = (),
        say: Callable[[str], None] = lambda line: None,
        engine: EngineName = "torch",
    ) -> Predictor:
        """The model of a run, a checkpoint, or any weights that say their classes and inputs.

        Args:
            weights: folder of a run, a checkpoint of one, or what `finetuning.pretrained`
                takes: an nnU-Net, a MONAI bundle, named weights, an address.
            checkpoint: which one of several: of the best epoch, or of the last one.
            device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.
            settings: of weights by others: what they do not say, or not rightly, as for
                finetune.py: `preprocessing=hsf`, `finetuning.source_classes=[background,DG]`.
            say: called with each line about the origin of weights by others.
            engine: what runs the network: `torch`; `onnxruntime` or `openvino`, on the CPU; or
                `auto`, the fastest one that finds the same.

        Raises:
            WeightsError: it cannot be read, or does not say what is needed.
            ConfigError: this machine has no such device or engine, or a setting is wrong.
        """
        chosen = pick_device("cpu" if device == "auto" and engine in GRAPH_ENGINES else device)
        source = None if settings else _read_own(weights, checkpoint)
        if source is None or source.meta is None:
            # Imported late: only the weights of others are described by settings.
            from hsf_finetune.inference.weights_model import model_of_weights

            anatomy, card = model_of_weights(weights, checkpoint, settings, say)
            return cls(anatomy, card, chosen, engine)

        def build_network() -> Anatomy:
            # Imported late, since MONAI imports all of itself.
            from hsf_finetune.networks.build import build

            with _explain_contradictions(source.path):
                anatomy = build(card.models, card.in_channels, len(card.classes))
                network = anatomy.network
                network.load_state_dict(with_all_names(network, source.tensors))
            return anatomy

        with _explain_contradictions(source.path):
            card = ModelCard.from_dict(source.meta)
        return cls(build_network, card, chosen, engine, source.tensors)

    @property
    def passes(self) -> int:
        """How often the network segments each scan."""
        return len(self._views)

    def with_views(self, kind: ViewKind) -> Predictor:
        """The same model, whose network sees each scan from several sides (see `views_of`).

        Raises:
            ConfigError: the network cannot segment mirrored scans.
        """
        other = copy(self)
        other._views = views_of(kind, self.card, self._engines.divisor)
        return other

    def with_card(self, card: ModelCard) -> Predictor:
        """The same network and preprocessing with another card."""
        other = copy(self)
        other.card = card
        return other

    def predict_passes(
        self, volumes: Sequence[Volume], calibrated: bool = False
    ) -> Iterator[Tensor]:
        """The probabilities in each view, (classes, X, Y, Z).

        Args:
            volumes: the channels of a scan.
            calibrated: by what the card has for it.

        Raises:
            DataError: a channel cannot be used.
            ConfigError: classes overlap.
        """
        if self.card.regions:
            raise ConfigError(
                "classes that overlap have no probabilities that sum to 1",
                found=f"regions of nnU-Net: {', '.join(self.card.classes[1:])}",
                expected="segmentations by one model, once: without probabilities, tta and ensembles",
                fix="leave these out, or fine-tune from it, to classes that exclude each other",
            )
        image, grid = prepare_channels(volumes, self.card.preprocessing)
        if not self._engines.is_compared:
            self._engines.segment(lambda network: self._segment(network, image, grid))
        network = self._engines.network()
        for view in self._views:
            scores = self._scores(network, image, grid, view, probabilities=True)
            found = grid.probabilities_to_file(scores)
            fitted = self.card.calibration if calibrated else None
            yield fitted.apply(found) if fitted else found

    def deciding_probabilities(self, volumes: Sequence[Volume]) -> Tensor:
        """As for each model; of regions, 1 for the class that a voxel gets."""
        if not self.card.regions:
            return super().deciding_probabilities(volumes)
        classes = torch.from_numpy(self._classes(volumes, None).astype(np.int64))
        return one_hot(classes, len(self.card.classes)).movedim(-1, 0).float()

    def _classes(
        self, volumes: Sequence[Volume], sums: SurenessSums | None
    ) -> npt.NDArray[np.uint8]:
        if self.passes > 1:
            return super()._classes(volumes, sums)
        image, grid = prepare_channels(volumes, self.card.preprocessing)
        return self._engines.segment(lambda network: self._segment(network, image, grid, sums))

    def _segment(
        self, network: Network, image: Tensor, grid: VoxelGrid, sums: SurenessSums | None = None
    ) -> npt.NDArray[np.uint8]:
        """Class indices of the scan as it is, (X, Y, Z); `sums` gets how sure they are."""
        if sums:
            sums.start()
        if not grid.resampler.changes_nothing:
            scores = self._scores(network, image, grid, View())
            if sums:
                sums.add(scores if grid.resampler.takes_logits else scores.clamp_min(1e-12).log())
            return grid.classes_to_file(scores, self._decide)
        with torch.inference_mode():
            seen, how = image[None].to(self._device), self.card.preprocessing
            slabs = volume_slabs(network, seen, self._engines.divisor, how)
            found, done = torch.empty(image.shape[1:], dtype=torch.uint8), 0
            for slab in slabs:
                logits = slab[0].float()
                if sums:
                    sums.add(logits)
                found[done : done + logits.shape[1]] = self._decide(logits)
                done += logits.shape[1]
        return grid.found_to_file(found)

    def _scores(
        self,
        network: Network,
        image: Tensor,
        grid: VoxelGrid,
        view: View,
        probabilities: bool = False,
    ) -> Tensor:
        """Scores on the network's grid, (classes, x, y, z), as that grid takes them.

        Where they are not resampled, the highest of the logits decides as that of the
        probabilities, unless these are wanted.
        """
        divisor = self._engines.divisor
        how = self.card.preprocessing
        with torch.inference_mode():
            seen = view.mirror(image)[None].to(self._device)
            logits = volume_logits(network, seen, divisor, how, view.shift_vox)[0].float()
            logits = view.mirror_back(logits)
            if not grid.resampler.takes_logits and (
                probabilities or not grid.resampler.changes_nothing
            ):
                for part in logits.split(_SLICES, dim=1):
                    part.copy_(part.softmax(dim=0))  # in place: of many classes, logits are large
        return logits


def _read_own(weights: str | Path, checkpoint: Literal["best", "last"]) -> Checkpoint | None:
    """What a path holds, if it is a run or a single file; None of anything else."""
    path = weights_of_export(Path(weights).expanduser())
    if not path.exists() or is_of_other_tool(path):
        return None
    return read_checkpoint(find_checkpoint(path, checkpoint))


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA or Apple's GPU where there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ConfigError(
                f"there is no device '{name}' on this machine",
                found=str(error).splitlines()[0],
                expected="auto, cpu, cuda, cuda:1 or mps, as the machine has them",
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def _explain_contradictions(path: Path) -> Iterator[None]:
    """Says which checkpoint it is whose weights and description do not fit together."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            "the checkpoint's weights and its description of the network contradict each other",
            file=path,
            found=f"{type(error).__name__}: {str(error)[:300]}",
            expected="a checkpoint as finetune.py or train.py of this version wrote it",
        ) from error
