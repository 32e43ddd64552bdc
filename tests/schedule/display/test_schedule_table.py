"""The schedule as people see it."""

import re

from rich.console import Console

from hsf_finetune.schedule.display.schedule_table import BlockSizes, schedule_table
from tests.schedule.planning import planned

SIZES = BlockSizes(
    blocks=dict.fromkeys(["encoder1", "encoder2", "encoder3", "bottleneck"], 100)
    | {"decoder3": 50, "decoder2": 30, "decoder1": 15, "head": 5},
    norms=dict.fromkeys(planned().blocks, 2) | {"head": 0},
)


def shown(**finetuning: object) -> str:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(schedule_table(planned(epochs=None, **finetuning), SIZES))
    return capture.get()


def test_a_row_per_stage_with_epochs_blocks_rates_and_shares() -> None:
    text = shown(unfreeze_frequency=4)
    rows = [line for line in text.splitlines() if re.match(r" \d+-\d+ ", line)]
    assert len(rows) == 4
    assert all(part in rows[0] for part in ("0-3", "head (0.001)", " 5 ", "1.0%"))
    assert all(part in rows[2] for part in ("8-11", "decoder2 (0.001)", "head, decoder1, decoder2"))
    assert "20.0%" in rows[3]


def test_what_stays_frozen_is_said() -> None:
    assert "Frozen to the end: encoder1, encoder2, encoder3, bottleneck." in shown(mode="decoder")


def test_different_rates_stand_apart() -> None:
    text = shown(strategy="full", lr_factors={"head": 10.0})
    assert "head (0.01)" in text
    assert "everything" in text
    assert "Frozen" not in text


def test_normalisation_of_frozen_blocks_is_counted() -> None:
    text = shown(strategy="encoder_first", encoder_blocks=1)
    # encoder1 and the head, and two each of the six blocks between them
    assert " 117 " in text
    assert "(except normalisation)" in text


def test_what_ends_a_stage_is_said() -> None:
    text = " ".join(shown(strategy="gradual", gradual_patience=4).split())
    assert "45 epochs at most" in text
    assert "ends after 4 epochs without a better Dice" in text
    assert "from the best weights so far" in text
