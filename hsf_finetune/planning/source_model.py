"""The source model with its own head, beside the network that took its weights."""

from __future__ import annotations

from dataclasses import replace

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.evaluation.head_check import HeadCheck, check_head
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.planning.setup import Setup
from hsf_finetune.planning.start import build_source_network


def source_predictor(setup: Setup) -> Predictor:
    """The source model with its own head and classes, numbered from the background's 0.

    Args:
        setup: of the run; it has a transfer.
    """
    transfer = setup.transfer
    assert transfer is not None
    classes = transfer.source_classes
    values = {name: number for number, name in enumerate(classes)}
    card = replace(setup.card, classes=classes, label_values=values)
    network = build_source_network(setup.settings, setup.cohort, transfer)
    return Predictor(network, card, setup.device)


def check_new_head(setup: Setup, case: Case) -> HeadCheck | None:
    """Scores the source model with its own head beside the new one, on one case.

    The source's network is built from the same settings and loaded in the same way, but
    with as many classes as it had; so what differs is the head alone.

    Args:
        setup: of the run, before any training; it has a transfer.
        case: an annotated scan.

    Returns:
        The comparison; None where the new head has nothing of the old one.
    """
    transfer = setup.transfer
    assert transfer is not None
    if not any(rule.channels for rule in transfer.receipt.channels):
        return None
    target = Predictor(setup.anatomy, setup.card, setup.device)
    return check_head(source_predictor(setup), target, transfer.receipt.channels, case)
