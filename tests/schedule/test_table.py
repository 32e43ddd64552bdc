"""The schedule as people see it."""

from rich.console import Console

from hsf_finetune.schedule.table import schedule_table
from tests.schedule.test_schedule import Blocks, planned

PARAMETERS = {block.name: 100 for block in (*Blocks().encoders, Blocks().bottleneck)} | {
    "decoder3": 50,
    "decoder2": 30,
    "decoder1": 15,
    "head": 5,
}


def shown(**finetuning: object) -> str:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(schedule_table(planned(epochs=None, **finetuning), PARAMETERS))
    return capture.get()


def test_a_row_per_stage_with_epochs_blocks_rates_and_shares() -> None:
    rows = [line for line in shown(unfreeze_frequency=4).splitlines() if line.startswith("│")]
    assert len(rows) == 4
    assert all(part in rows[0] for part in ("0-3", "head (0.001)", " 5 ", "1.0%"))
    assert all(part in rows[2] for part in ("8-11", "decoder2 (0.001)", "head, decoder1, decoder2"))
    assert "20.0%" in rows[3]


def test_what_stays_frozen_is_said() -> None:
    assert "Frozen to the end: encoder1, encoder2, encoder3, bottleneck." in shown()


def test_different_rates_stand_apart() -> None:
    text = shown(strategy="full", head_lr_factor=10.0)
    assert "head (0.01)" in text
    assert "everything" in text
    assert "Frozen" not in text
