"""Which settings suit the data at hand, each with its reason and the override to paste."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hsf_finetune.config.settings import Settings

FAR = 0.5
"""Dice of an untouched model below which something about the images or labels is new to it."""
NEAR = 0.75
"""Dice from which on little has to change."""

_FEW, _MANY = 8, 20
"""Subjects below which folds are made by default, and from which on a single split will do."""
_WANTED_STEPS = 400
"""Optimiser steps: on the decathlon's hippocampus 150 steps from a union of two classes gave a
Dice of .872 and 400 gave .876, and with 5 cases 150 still gave .866."""

_MEASURED = {
    True: "With 3 and 5 subjects of the decathlon's hippocampus the decoder alone was level with "
    "everything (the default), in two thirds of the time",
    False: "With 16 subjects of the decathlon's hippocampus everything (the default) reached a "
    "Dice of .849 and the decoder alone .839, in two thirds of the time: leave this out if you "
    "have that time",
}
"""Few subjects -> how training the decoder alone compared (benchmarks/strategies.py)."""


@dataclass(frozen=True)
class Advice:
    """One thing to set.

    Args:
        about: what it is about.
        what: the advice, in a few words.
        reason: what was seen that speaks for it.
        override: to paste; empty where the settings are right as they are.
    """

    about: str
    what: str
    reason: str
    override: str = ""

    def lines(self) -> list[str]:
        """The advice for a terminal."""
        found = [f"{self.about}: {self.what}", f"  because {self.reason}"]
        return [*found, f"    {self.override}"] if self.override else found


@dataclass(frozen=True)
class Diagnosis:
    """What advice is given on.

    Args:
        subjects: people in the data.
        validating: of them, those that a single split would validate on.
        folds: that the run makes one after the other; None for a single split or one fold.
        steps: optimiser steps of an epoch.
        epochs: of the run as it is set.
        pretrained: whether there are weights to start from.
        contrast: what speaks for images of another contrast or scanner; empty if nothing.
        protocol: what speaks for another protocol; empty if nothing does.
        dice: mean Dice of the untouched model over what it knows; NaN if unknown.
        spacing_mm: voxel size that the source model knows, where the data's is another.
    """

    subjects: int
    validating: int
    folds: int | None
    steps: int
    epochs: int
    pretrained: bool
    contrast: str = ""
    protocol: str = ""
    dice: float = math.nan
    spacing_mm: tuple[float, ...] = ()


def give_advice(diagnosis: Diagnosis, settings: Settings) -> Iterator[Advice]:
    """The rules, in the order of what matters most.

    A new contrast wants the encoder and a new protocol the decoder, as HSF's guide has it and
    as surgical fine-tuning found (Lee et al., ICLR 2023).

    Args:
        diagnosis: what was seen.
        settings: as they are.
    """
    if diagnosis.spacing_mm:
        text = ", ".join(f"{n:.3g}" for n in diagnosis.spacing_mm)
        yield Advice(
            "voxel size",
            "resample to the voxel size of the source model",
            "its filters know the structure at that size",
            f"'datasets.target_spacing_mm=[{text}]'",
        )
    if diagnosis.pretrained:
        yield _part(diagnosis)
        if diagnosis.subjects < _FEW:
            yield _depth(diagnosis)
    yield _epochs(diagnosis, settings)
    if diagnosis.pretrained:
        yield _rate(diagnosis)
    yield _validation(diagnosis)


# -------------------------------------------------------------------- internals
def _part(diagnosis: Diagnosis) -> Advice:
    seen = (
        ""
        if math.isnan(diagnosis.dice)
        else f"; untouched it reaches a Dice of {diagnosis.dice:.2f}"
    )
    few = diagnosis.subjects < _FEW
    if diagnosis.contrast and diagnosis.protocol:
        return Advice(
            "what trains",
            "decoder, bottleneck and encoder, one after the other",
            f"{diagnosis.contrast}, and {diagnosis.protocol}{seen}",
            "finetuning.mode=both",
        )
    if diagnosis.contrast:
        return Advice(
            "what trains",
            "the encoder first, since the contrast is new",
            f"{diagnosis.contrast}, while the classes are the ones it knows{seen}",
            "finetuning.mode=encoder",
        )
    if diagnosis.protocol:
        return Advice(
            "what trains",
            "the decoder, since the protocol is new",
            f"{diagnosis.protocol}, while nothing speaks for another contrast{seen}. {_MEASURED[few]}",
            "finetuning.mode=decoder",
        )
    return Advice(
        "what trains",
        "everything, each block slower the farther it is from the head (the default)",
        f"neither another contrast nor another protocol was found{seen}",
    )


def _depth(diagnosis: Diagnosis) -> Advice:
    if diagnosis.contrast or diagnosis.protocol:
        return Advice(
            "depth",
            "every block of what trains, as set",
            "with 3 subjects of the decathlon's hippocampus, one block of the decoder beside the "
            "head reached a Dice of .76, two reached .81, and all of them .83",
        )
    return Advice(
        "depth",
        "hold the weights near the pretrained ones",
        f"{diagnosis.subjects} subjects can teach few parameters without being learnt by heart",
        "finetuning.regularise=l2sp",
    )


def _epochs(diagnosis: Diagnosis, settings: Settings) -> Advice:
    total = diagnosis.steps * diagnosis.epochs
    reason = (
        f"{diagnosis.epochs} epochs of {diagnosis.steps} steps are {total} steps, and fine-tuning levels off "
        f"at some {_WANTED_STEPS}"
    )
    if not diagnosis.pretrained:
        return Advice(
            "epochs",
            f"{diagnosis.epochs} as set, or more",
            "random weights need more steps than others",
        )
    if total >= _WANTED_STEPS:
        return Advice("epochs", f"{diagnosis.epochs} as set suffice", reason)
    needed = math.ceil(_WANTED_STEPS / diagnosis.steps)
    if settings.finetuning.chosen_strategy == "hsf" or diagnosis.contrast or diagnosis.protocol:
        depth = settings.finetuning.depth
        blocks = 3 if depth is None or depth < 0 else depth
        frequency = math.ceil(needed / (blocks + 1))
        override = f"finetuning.unfreeze_frequency={frequency}"
    else:
        override = f"lightning.max_epochs={needed}"
    return Advice("epochs", f"about {needed}", reason, override)


def _rate(diagnosis: Diagnosis) -> Advice:
    if diagnosis.dice >= NEAR:
        return Advice(
            "learning rate",
            "a third of the default",
            f"the untouched model already reaches a Dice of {diagnosis.dice:.2f}, which large steps "
            "would undo first",
            "models.lr=3e-4",
        )
    return Advice(
        "learning rate",
        "the default, 1e-3",
        "the untouched model has far to go"
        if diagnosis.dice < FAR
        else "the rates of this package were chosen with it",
    )


def _validation(diagnosis: Diagnosis) -> Advice:
    if diagnosis.folds is not None:
        return Advice(
            "validation",
            f"{diagnosis.folds} folds, as set",
            f"each of {diagnosis.subjects} subjects then validates once; {diagnosis.validating} validation "
            "subject(s) of a single split would say little",
        )
    if diagnosis.subjects < _MANY:
        return Advice(
            "validation",
            "folds, so that every subject validates once",
            f"a single split validates on {diagnosis.validating} of {diagnosis.subjects} subjects, and its "
            "interval is wide",
            "datasets.fold=all",
        )
    return Advice(
        "validation",
        "a single split",
        f"{diagnosis.validating} of {diagnosis.subjects} subjects validate, enough for a usable interval",
    )
