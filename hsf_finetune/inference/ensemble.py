"""Several models whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from hsf_finetune.data.volumes.read_volume import Volume
from hsf_finetune.inference.engines import EngineName
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.inference.postprocessing import Postprocessing
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.inference.views import ViewKind
from hsf_finetune.system import console
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.run_folder import BEST, fold_folders, whole_folds
from hsf_finetune.weights.sources.exported_folder import weights_of_export

Checkpoints = Literal["best", "last", "folds"]
"""Of a run: its best epoch, its last one, or, where it has several folds, the best of each."""


class Ensemble(ScanModel):
    """Models of the same classes. Each prepares a scan as it needs it.

    Args:
        members: at least one; the first one's card describes the ensemble. Of post-processing it
            has the steps that all of them have.

    Raises:
        ConfigError: they differ in classes, label values or input channels.
    """

    def __init__(self, members: Sequence[ScanModel]) -> None:
        expected = _in_common(members[0].card)
        for number, member in enumerate(members[1:], start=2):
            for what, found in _in_common(member.card).items():
                if found != expected[what]:
                    raise ConfigError(
                        f"the models cannot be averaged: they differ in their {what}",
                        found=f"model {number}: {found}",
                        expected=f"as model 1: {expected[what]}",
                        fix="segment with each by itself, into a folder of its own",
                    )
        shared = Postprocessing.shared([member.card.postprocessing for member in members])
        super().__init__(replace(members[0].card, postprocessing=shared))
        self.members = tuple(members)

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.members))})"

    @property
    def passes(self) -> int:
        """How often networks segment each scan."""
        return sum(member.passes for member in self.members)

    def with_views(self, kind: ViewKind) -> Ensemble:
        """The same models, whose networks see each scan from several sides (see `views_of`).

        Raises:
            ConfigError: one cannot segment mirrored scans.
        """
        return Ensemble([member.with_views(kind) for member in self.members])

    def predict_passes(
        self, volumes: Sequence[Volume], calibrated: bool = False
    ) -> Iterator[Tensor]:
        """The probabilities in each view of each model, (classes, X, Y, Z).

        Args:
            volumes: the channels of a scan.
            calibrated: each model by its own card.

        Raises:
            DataError: a channel cannot be used.
        """
        for member in self.members:
            yield from member.predict_passes(volumes, calibrated)


def load_models(
    weights: Sequence[str | Path],
    checkpoint: Checkpoints = "best",
    device: str = "auto",
    settings: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    engine: EngineName = "torch",
) -> ScanModel:
    """One model, or the mean of several.

    Args:
        weights: as for `Predictor.load`, one or more.
        checkpoint: of each run; `folds` takes all folds of a run in place of its final model.
        device: as for `Predictor.load`.
        settings: of weights by others, as for `Predictor.load`.
        say: called with each line about the origin of weights by others.
        engine: what runs the networks.

    Raises:
        WeightsError: a model cannot be read.
        ConfigError: the models differ in classes or channels, or a run has no folds.
        DataError: a fold of a run is missing or has not ended.
    """
    paths: list[str | Path] = list(weights)
    which: Literal["best", "last"] = "last" if checkpoint == "last" else "best"
    if checkpoint == "folds":
        paths = [fold for one in weights for fold in _folds(Path(one).expanduser())]
    members = [Predictor.load(one, which, device, settings, say, engine) for one in paths]
    return members[0] if len(members) == 1 else Ensemble(members)


def split_models(weights: str, others: Sequence[str]) -> tuple[list[str], list[str]]:
    """The models and the scans of a command line.

    Args:
        weights: the first model.
        others: further models, which are runs and checkpoints of this package; then scans.

    Raises:
        ConfigError: there is no scan.
    """
    count = next((n for n, one in enumerate(others) if not _is_own(Path(one))), len(others))
    if count == len(others):
        raise ConfigError(
            "there is no scan to segment",
            found=f"{count + 1} models",
            fix="hsf-finetune predict RUN1 RUN2 SCANS -o SEGMENTATIONS",
        )
    return [weights, *others[:count]], [*others[count:]]


def describe_passes(model: ScanModel) -> str:
    """What is averaged for each scan; empty where nothing is."""
    if model.passes == 1:
        return ""
    models = len(model.members) if isinstance(model, Ensemble) else 1
    passes = f"{model.passes} passes for each scan, whose probabilities are averaged"
    return f"{count_of(models, 'model')}, {passes}"


def say_method(model: ScanModel) -> None:
    """Says how much longer several passes take than one, and what is done to the labels."""
    if passes := describe_passes(model):
        console.say(f"{passes}: {model.passes} times the time of one")
    for line in model.card.postprocessing.lines():
        console.say(f"post-processing, by the validation cases: {line}")


def _is_own(path: Path) -> bool:
    """Whether a path is a run, an export or a checkpoint of this package, and no scan."""
    path = weights_of_export(path.expanduser())
    if path.is_dir():
        return bool(fold_folders(path)) or any((path / n).exists() for n in ("checkpoints", BEST))
    return path.suffix == ".ckpt"


def _folds(run: Path) -> list[Path]:
    if folds := whole_folds(run):
        return folds
    raise ConfigError(
        "the run has no folds",
        file=run,
        expected="a run with datasets.fold=all, whose folder holds fold_0, fold_1, ...",
        fix="--checkpoint best",
    )


def _in_common(card: ModelCard) -> dict[str, str]:
    """What the models of an ensemble must agree in, in words."""
    values = (f"{name} {card.label_values[name]}" for name in card.classes)
    return {"classes": ", ".join(values), "input channels": str(card.in_channels)}
