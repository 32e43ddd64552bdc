"""The paragraph on methods that a paper needs, and what it refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.preprocessing.describe_preprocessing import describe_preprocessing
from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.report.describe_training import span_of
from hsf_finetune.report.trained_cases import also_trained
from hsf_finetune.system.console import count_of
from hsf_finetune.system.read_json import read_json_list
from hsf_finetune.system.version import __version__

_MONAI = "Cardoso et al. MONAI: An open-source framework for deep learning in healthcare. arXiv:2211.02701, 2022."
_DICE = "Dice. Measures of the amount of ecologic association between species. Ecology 26:297-302, 1945."
_NSD = (
    "Nikolov et al. Clinically applicable segmentation of head and neck anatomy for radiotherapy. "
    "J Med Internet Res 23:e26151, 2021."
)
_INTERVALS = "Hesterberg. What teachers should know about the bootstrap. Am Stat 69:371-386, 2015."
_BLAND = (
    "Bland, Altman. Statistical methods for assessing agreement between two methods of clinical "
    "measurement. Lancet 327:307-310, 1986."
)
_ICC = "McGraw, Wong. Forming inferences about some intraclass correlation coefficients. Psychol Methods 1:30-46, 1996."
_OF_STRATEGY: Mapping[str, str] = {
    "lpft": "Kumar et al. Fine-tuning can distort pretrained features and underperform "
    "out-of-distribution. ICLR, 2022.",
    "gradual": "Howard, Ruder. Universal language model fine-tuning for text classification. ACL, 2018.",
    "hsf": "Poiret et al. A fast and robust hippocampal subfields segmentation: HSF. "
    "Front Neuroinform 17:1130845, 2023.",
}
_KEPT = "Li, Hoiem. Learning without forgetting. IEEE Trans Pattern Anal Mach Intell 40:2935-2947, 2018."
_L2SP = "Li et al. Explicit inductive bias for transfer learning with convolutional networks. ICML, 2018."
_LOSSES: Mapping[str, str] = {
    "dice_ce": "the sum of soft Dice loss and cross-entropy",
    "dice_focal": "the sum of soft Dice loss and focal loss",
    "dice": "the soft Dice loss",
    "ce": "the cross-entropy",
    "focal": "the focal loss",
    "tversky": "the Tversky loss",
    "focal_tversky": "the focal Tversky loss",
}
_OF_NETWORK: Mapping[str, str] = {
    "unet": "Kerfoot et al. Left-ventricle quantification using residual U-Net. STACOM, 2018.",
    "monai_unet": "Kerfoot et al. Left-ventricle quantification using residual U-Net. STACOM, 2018.",
    "segresnet": "Myronenko. 3D MRI brain tumor segmentation using autoencoder regularization. "
    "BrainLes, 2018.",
    "swinunetr": "Hatamizadeh et al. Swin UNETR: Swin transformers for semantic segmentation of "
    "brain tumors in MRI images. BrainLes, 2021.",
    "dynunet": "Isensee et al. nnU-Net: a self-configuring method for deep learning-based "
    "biomedical image segmentation. Nat Methods 18:203-211, 2021.",
    "nnunet": "Isensee et al. nnU-Net: a self-configuring method for deep learning-based "
    "biomedical image segmentation. Nat Methods 18:203-211, 2021.",
}


def describe_methods(
    settings: Settings,
    card: ModelCard,
    split: Mapping[str, Any],
    training: str,
    weights: Mapping[str, Any] | None,
) -> list[str]:
    """The paragraph; numbers in brackets are those of `list_references`.

    Args:
        settings: of the run.
        card: of its model.
        split: from splits.json.
        training: from `describe_training`.
        weights: from transfer.json; None for random weights.
    """
    folds = split.get("folds") or [split]
    counts = ", ".join(
        f"{count_of(len(split[side]), 'scan')} of "
        f"{count_of(len({one for fold in folds for one in fold['subjects'][side]}), 'subject')} "
        f"for {side.replace('train', 'training')}"
        f"{also_trained(split, side) if side != 'train' else ''}"
        for side in ("train", "validation", "test")
        if split.get(side)
    )
    held_out = split.get("held_out", True)
    parted = "The data were split by subject" if held_out else "The data were not held out"
    if "folds" in split:
        counts += f" ({split['how']})"
    start = "random weights"
    if weights:
        start = f"pretrained weights ({100 * weights['share_parameters']:.1f} % of the parameters"
        start += "".join(f"; {line}" for line in _describe_classes(weights)) + ")"
    tuning, optimiser = settings.finetuning, settings.models
    trained = "trained" if weights is None else f"fine-tuned (strategy '{tuning.chosen_strategy}')"
    augmented = f"the {settings.augmentation.pipeline} augmentation"
    more = {"mixup": settings.augmentation.mixup_p, "CutMix": settings.augmentation.cutmix_p}
    more["label smoothing"] = optimiser.label_smoothing
    augmented += "".join(f", {name} ({value:g})" for name, value in more.items() if value)
    prepared = "; ".join(f"{k}: {v}" for k, v in describe_preprocessing(card.preprocessing).items())
    return [
        f"A {card.models.name} network with {card.in_channels} input and {len(card.classes)} output "
        f"channels ({', '.join(card.classes)}) was {trained} from {start} with hsf_finetune "
        f"{__version__} on MONAI [1]. Images were prepared as follows ({prepared}). {parted}: "
        f"{counts}. {training} "
        f"({tuning.lr_schedule}) with {augmented}, minimising {_describe_loss(settings)}; "
        + (
            "the weights of the last epoch were kept. "
            if tuning.budget == "fixed"
            else "the weights of the epoch with the best mean validation Dice were kept. "
        )
        + "Segmentations were compared with manual labels by the Dice coefficient [2], the "
        "95th percentile Hausdorff distance and the normalised surface Dice [3]; 95 % intervals "
        "are over subjects (Student's t below 8 subjects, else an expanded percentile bootstrap "
        "[4]). Agreement of volumes was assessed by limits of agreement [5] and the intraclass "
        "correlation ICC(A,1) [6]."
    ]


def _describe_classes(weights: Mapping[str, Any]) -> Iterator[str]:
    """Which classes came out of other ones of the source, as `finetuning.derive_from` says."""
    came_of: dict[str, list[str]] = {}
    for rule in weights.get("channels", []):
        if rule["rule"] != "copied by position" and rule["sources"] not in ([], [rule["target"]]):
            came_of.setdefault(" and ".join(rule["sources"]), []).append(rule["target"])
    for sources, classes in came_of.items():
        yield f"{' and '.join(classes)} started from the output of {sources}"


def _describe_loss(settings: Settings) -> str:
    tuning, optimiser = settings.finetuning, settings.models
    text = _LOSSES[optimiser.loss]
    if optimiser.use_forgiving_loss:
        text += " over sets of classes where labels do not tell them apart"
    if tuning.keep_old:
        where = " where labels leave its classes open" if tuning.keep_old == "distil" else ""
        text += (
            f" and, times {tuning.keep_old_strength:g}, the Kullback-Leibler divergence from the "
            f"source model's probabilities{where} (learning without forgetting)"
        )
    if tuning.regularise == "l2sp":
        text += f", with a pull of {tuning.l2sp_strength:g} towards the pretrained weights (L2-SP)"
    return text


def describe_selftrain(runs: Sequence[Path]) -> Iterator[str]:
    """What a run learned from scans without labels, if it did.

    Args:
        runs: its folds and the run on all cases, or itself.
    """
    files = [file for run in runs if (file := run / "unlabelled.json").exists()]
    if not files:
        return
    counts = [len(read_json_list(file, {})) for file in files]
    tuning = read_settings_of(files[0].parent).finetuning.selftrain
    assert tuning is not None
    given = count_of(len(tuning.teacher), "given model")
    yield (
        f"{span_of(counts, 'scan')} without manual labels were labelled{', in each run,' if len(runs) > 1 else ''} "
        f"by {given if tuning.teacher else 'a model that was trained on the labelled ones'} "
        f"({count_of(tuning.rounds, 'round')} of self-training): voxels with several classes of a "
        f"probability of at least {tuning.plausible:g} were labelled with the set of these, and "
        f"entered a set-valued loss. At least {100 * tuning.labelled_share:.0f} % of the training "
        "draws were of scans with manual labels."
    )


def list_references(
    settings: Settings, card: ModelCard, weights: Mapping[str, Any] | None
) -> list[str]:
    """What the paragraph refers to, numbered; then network, strategy and weights."""
    numbered = [_MONAI, _DICE, _NSD, _INTERVALS, _BLAND, _ICC]
    origin = (weights or {}).get("origin") or {}
    more = [
        _OF_NETWORK.get(card.models.name),
        _OF_STRATEGY.get(settings.finetuning.chosen_strategy) if weights else None,
        _KEPT if settings.finetuning.keep_old else None,
        _L2SP if settings.finetuning.regularise == "l2sp" else None,
        str(origin["citation"]) if origin.get("citation") else None,
    ]
    known = [*numbered, *dict.fromkeys(filter(None, more))]
    return [f"[{number}] {text}" for number, text in enumerate(known, start=1)]
