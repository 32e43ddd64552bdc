"""Another model card in a checkpoint that has been written."""

from __future__ import annotations

from pathlib import Path

import torch

from hsf_finetune.inference.model_card import ModelCard
from hsf_finetune.system.atomic_files import atomic_write
from hsf_finetune.weights.files.checkpoint import META_KEY


def rewrite_card(path: Path, card: ModelCard) -> None:
    """Replaces the card in a checkpoint of this package; all else in it stays.

    Args:
        path: the file.
        card: the new card.

    Raises:
        OutputError: the disk is full.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    with atomic_write(path) as temporary:
        torch.save({**content, META_KEY: card.to_dict()}, temporary)
