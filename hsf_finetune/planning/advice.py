"""Which settings suit the data at hand, each with its reason and the override to paste."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from hsf_finetune.config.settings import Settings
from hsf_finetune.system.console import count_of
from hsf_finetune.weights.transfer.class_rules import Derivations, derive_override

FAR = 0.5
"""Dice of an untouched model below which something about the images or labels is new to it."""
NEAR = 0.75
"""Dice from which on little has to change."""

KNOWN = 0.85
"""Dice of an untouched model from which on it draws what it knows better than a few cases teach."""

_FEW, _MANY = 8, 20
"""Subjects below which folds are made by default, and from which on a single split will do."""
_SELFTRAINED = 5
"""Most labelled subjects beside whom scans without labels added anything."""
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
        splits: classes that the data draw finer than the source model does.
        spacing_mm: voxel size that the source model knows, where the data's is another.
        derive_from: new class -> class or classes of the source model that it may come out
            of, where they have not been given.
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
    splits: tuple[str, ...] = ()
    derive_from: Derivations = field(default_factory=dict)


def give_advice(diagnosis: Diagnosis, settings: Settings) -> Iterator[Advice]:
    """The rules, in the order of what matters most.

    A new contrast wants the encoder and a new protocol the decoder, as HSF's guide has it and
    as surgical fine-tuning found (Lee et al., ICLR 2023).

    Args:
        diagnosis: what was seen.
        settings: as they are.
    """
    if diagnosis.derive_from:
        yield _classes(diagnosis.derive_from)
    if diagnosis.spacing_mm:
        text = ", ".join(f"{n:.3g}" for n in diagnosis.spacing_mm)
        yield Advice(
            "voxel size",
            "resample to the voxel size of the source model",
            "its filters know the structure at that size",
            f"'preprocessing.spacing=[{text}]'",
        )
    if diagnosis.pretrained:
        yield _part(diagnosis)
        if diagnosis.subjects < _FEW:
            yield _depth(diagnosis)
        if diagnosis.splits and diagnosis.dice >= KNOWN and diagnosis.subjects < _MANY:
            yield _outlines(diagnosis)
    yield _epochs(diagnosis, settings)
    if diagnosis.pretrained:
        yield _rate(diagnosis)
    yield _validation(diagnosis)
    if diagnosis.subjects <= _SELFTRAINED and settings.finetuning.selftrain is None:
        yield _unlabelled(diagnosis, settings)


def _classes(derive_from: Derivations) -> Advice:
    new = ", ".join(derive_from)
    known = [
        name
        for given in derive_from.values()
        for name in ([given] if isinstance(given, str) else given)
    ]
    return Advice(
        "classes",
        f"take {new} out of {', '.join(dict.fromkeys(known))}, if they lie within it",
        "they start from the background otherwise. On the decathlon's hippocampus, anterior and "
        "posterior out of the whole reached a Dice of .69 after 12 epochs, and .46 without",
        derive_override(derive_from),
    )


def _part(diagnosis: Diagnosis) -> Advice:
    contrast, protocol, dice = diagnosis.contrast, diagnosis.protocol, diagnosis.dice
    seen = "" if math.isnan(dice) else f"; untouched it reaches a Dice of {dice:.2f}"
    if contrast and protocol:
        what = "decoder, bottleneck and encoder, one after the other"
        reason, mode = f"{contrast}, and {protocol}{seen}", "both"
    elif contrast:
        what = "the encoder first, since the contrast is new"
        reason, mode = f"{contrast}, while the classes are the ones it knows{seen}", "encoder"
    elif protocol:
        what = "the decoder, since the protocol is new"
        measured = _MEASURED[diagnosis.subjects < _FEW]
        reason = f"{protocol}, while nothing speaks for another contrast{seen}. {measured}"
        mode = "decoder"
    else:
        what = "everything, each block slower the farther it is from the head (the default)"
        reason, mode = f"neither another contrast nor another protocol was found{seen}", None
    return Advice("what trains", what, reason, f"finetuning.mode={mode}" if mode else "")


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


def _outlines(diagnosis: Diagnosis) -> Advice:
    return Advice(
        "outlines",
        f"those that the source model draws around {', '.join(diagnosis.splits)} together",
        f"untouched it reaches a Dice of {diagnosis.dice:.2f} there, and learnt its outlines from "
        "more cases than these. On the decathlon's hippocampus that added .011 with 1 and 5 "
        "subjects, and .009 with 16",
        "finetuning.keep_old=everywhere",
    )


def _epochs(diagnosis: Diagnosis, settings: Settings) -> Advice:
    epochs, steps, tuning = diagnosis.epochs, diagnosis.steps, settings.finetuning
    if not diagnosis.pretrained:
        reason = "random weights need more steps than others"
        return Advice("epochs", f"{epochs} as set, or more", reason)
    reason = (
        f"{epochs} epochs of {steps} steps are {steps * epochs} steps, and fine-tuning levels off "
        f"at some {_WANTED_STEPS}"
    )
    # The length of one regime says nothing of another, which a mode chooses: both take this one.
    if steps * epochs < _WANTED_STEPS:
        needed = math.ceil(_WANTED_STEPS / steps)
        return Advice("epochs", f"about {needed}", reason, f"lightning.max_epochs={needed}")
    new_mode = bool(diagnosis.contrast or diagnosis.protocol) and tuning.chosen_strategy != "hsf"
    override = f"lightning.max_epochs={epochs}" if new_mode else ""
    return Advice("epochs", f"{epochs} as set suffice", reason, override)


def _rate(diagnosis: Diagnosis) -> Advice:
    dice = diagnosis.dice
    if dice >= NEAR:
        reason = (
            f"the untouched model already reaches a Dice of {dice:.2f}, which large steps would "
            "undo first"
        )
        return Advice("learning rate", "a third of the default", reason, "models.lr=3e-4")
    reason = "the rates of this package were chosen with it"
    if dice < FAR:
        reason = "the untouched model has far to go"
    return Advice("learning rate", "the default, 1e-3", reason)


def _validation(diagnosis: Diagnosis) -> Advice:
    subjects, validating = diagnosis.subjects, diagnosis.validating
    if diagnosis.folds is not None:
        what, override = f"{diagnosis.folds} folds, as set", ""
        reason = (
            f"each of {subjects} subjects then validates once; {validating} validation subject(s) "
            "of a single split would say little"
        )
    elif subjects < _MANY:
        what, override = "folds, so that every subject validates once", "datasets.fold=all"
        reason = (
            f"a single split validates on {validating} of {subjects} subjects, and its interval "
            "is wide"
        )
    else:
        what, override = "a single split", ""
        reason = f"{validating} of {subjects} subjects validate, enough for a usable interval"
    return Advice("validation", what, reason, override)


def _unlabelled(diagnosis: Diagnosis, settings: Settings) -> Advice:
    given = settings.datasets.unlabelled
    what = "learn from them" if given else "learn from further scans, if there are any"
    measured = (
        "with 1 labelled subject of the decathlon's hippocampus that added .012 to a Dice of .835, "
        "and with 5 .002, which may be chance"
    )
    return Advice(
        "scans without labels",
        what,
        f"{count_of(diagnosis.subjects, 'labelled subject')} are few, and labels that a first model "
        f"gives to further scans of the same kind teach a second one: {measured} (docs/few_cases.md)",
        "finetuning=selftrain" if given else "finetuning=selftrain datasets.unlabelled=FOLDER",
    )
