"""The picture of a validation case: its sides, classes and Dice, and how often it is drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.image import imread

from hsf_finetune.data.loading.batches import Batch
from hsf_finetune.labels.label_colours import LabelRow
from hsf_finetune.training import validation_picture
from hsf_finetune.training.validation_picture import ValidationPicture, draw_first_case

CLASSES = ("background", "DG", "CA1")


@pytest.fixture
def batch() -> Batch:
    label = torch.zeros(1, 8, 12, 8, dtype=torch.uint8)
    label[:, 2:6, 2:6, 2:6], label[:, 2:6, 6:10, 2:6] = 1, 2
    image = label[:, None] + torch.linspace(0, 1, 8)
    allowed = torch.eye(3, dtype=torch.bool)[None]
    return {"image": image, "label": label, "allowed": allowed, "case": ["sub-01"]}  # type: ignore[typeddict-item]


def test_sides_and_classes_are_named(batch: Batch) -> None:
    figure = draw_first_case(batch, batch["label"][0], CLASSES)
    for row, ends in zip(range(3), ("PA", "LR", "LR"), strict=True):
        for axis in figure.axes[3 * row : 3 * row + 3]:
            assert "".join(text.get_text() for text in axis.texts) == ends
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DG", "CA1"]


def test_it_is_drawn_first_last_and_not_too_often(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def draw(*given: Any) -> Any:
        figure = draw_first_case(*given)
        write = figure.suptitle
        monkeypatch.setattr(
            figure, "suptitle", lambda text, **k: (titles.append(text), write(text))
        )
        return figure

    monkeypatch.setattr(validation_picture, "draw_first_case", draw)
    rows = [LabelRow(n, name, (n, n, n)) for n, name in enumerate(CLASSES[1:], start=1)]
    callback = ValidationPicture(tmp_path / "preview.png", CLASSES, rows)
    logits = torch.nn.functional.one_hot(batch["label"].long(), 3).movedim(-1, 1).float()
    for epoch in range(5):
        trainer: Any = SimpleNamespace(
            current_epoch=epoch,
            max_epochs=5,
            sanity_checking=False,
            is_global_zero=True,
            loggers=(),
        )
        callback.on_validation_batch_end(trainer, None, logits, batch, 0)  # type: ignore[arg-type]
    assert titles == ["sub-01, epoch 0, Dice 1.000", "sub-01, epoch 4, Dice 1.000"]
    assert imread(tmp_path / "preview.png").std() > 0.05
