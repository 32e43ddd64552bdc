"""The model that is exported: a run's, a checkpoint's, or one in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.model_card import NO_POSTPROCESSING, ModelCard
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.networks.anatomy import Anatomy
from hsf_finetune.system.errors import ConfigError, UserError
from hsf_finetune.system.read_json import read_json
from hsf_finetune.system.run_folder import SPLITS
from hsf_finetune.weights.sources.read_source import find_checkpoint


@dataclass(frozen=True)
class TrainedModel:
    """A model to export.

    Args:
        predictor: the model, on the CPU, whose segmentations the export has to give.
        name: what its files are called: letters, digits and underscores.
        run: folder of its run; None where it is not known.
        origin: what is known of the weights that it was fine-tuned from.
    """

    predictor: Predictor
    name: str
    run: Path | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> ModelCard:
        """Its description."""
        return self.predictor.card

    @property
    def anatomy(self) -> Anatomy:
        """Its network."""
        return self.predictor.anatomy

    @classmethod
    def read(cls, model: str | Path | ScanModel, name: str) -> TrainedModel:
        """The model of a run, a checkpoint, or in memory.

        Args:
            model: folder of a run, whose best epoch counts, a checkpoint, or a model from `Predictor.load`.
            name: what to call it; other characters than those of a name become underscores.

        Raises:
            WeightsError: it cannot be read, or was not written by this package.
            ConfigError: it is an ensemble, or segments each scan several times.
            DataError: the transfer.json of its run is damaged.
        """
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "model"
        if isinstance(model, ScanModel):
            if model.card.regions:
                raise ConfigError(
                    "an export holds classes that exclude each other",
                    found=f"regions of nnU-Net: {', '.join(model.card.classes[1:])}",
                    fix="fine-tune from it, and export that run",
                )
            if not isinstance(model, Predictor) or model.passes > 1:
                raise ConfigError(
                    "an export holds one network, which segments each scan once",
                    found=f"{model}, {model.passes} passes",
                    fix="export one of its models, as it was loaded without tta",
                )
            return cls(model, plain)
        file = find_checkpoint(model)
        run = next((p for p in file.parents[:2] if (p / "config.yaml").exists()), None)
        return cls(Predictor.load(file, device="cpu"), plain, run, _read_origin(run))

    def without_postprocessing(self) -> TrainedModel:
        """The same network, whose labels are those of its probabilities."""
        card = replace(self.card, postprocessing=NO_POSTPROCESSING)
        return replace(self, predictor=self.predictor.with_card(card))

    def reference_scan(self) -> tuple[VolumeRef, ...]:
        """The channels of a case of its run, of a validation case where there is one.

        Raises:
            ConfigError: its run is not known, or its cases are not where they were.
        """
        fix = "give a scan like those that it was trained on: --scan FILE, or --no-proof"
        if self.run is None or not (self.run / SPLITS).exists():
            raise ConfigError(
                "a checkpoint alone has no scan to prove the export on", file=self.run, fix=fix
            )
        settings = read_settings_of(self.run)
        datasets = settings.datasets.model_copy(update={"split_file": str(self.run / SPLITS)})
        try:
            cases = discover(datasets, settings.models).cases
            split = split_cases(cases, datasets, settings.seed)
        except (UserError, OSError) as error:
            raise ConfigError(
                "the run's cases cannot be found, so there is no scan to prove the export on",
                file=self.run,
                found=str(error).splitlines()[0],
                fix=fix,
            ) from error
        return (split.side("validation") or split.side("train"))[0].images


def _read_origin(run: Path | None) -> Mapping[str, Any]:
    """Where the weights came from that a run started with, from its transfer.json."""
    if run is None or not (run / "transfer.json").exists():
        return {}
    found = read_json(run / "transfer.json", {})
    origin = found.get("origin")
    known = dict(origin) if isinstance(origin, Mapping) else {}
    if isinstance(found.get("source"), str):
        known.setdefault("name", Path(found["source"]).name)
    return known
