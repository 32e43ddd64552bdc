"""What the pictures of a schedule show, against the schedule itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from hsf_finetune.schedule.display import schedule_picture
from hsf_finetune.schedule.display.schedule_picture import FROZEN, draw_schedule, save_picture
from hsf_finetune.schedule.display.text_picture import (
    ASCII_CHARACTERS,
    MIN_WIDTH,
    UNICODE_CHARACTERS,
    CharacterSet,
    draw_as_text,
)
from hsf_finetune.schedule.display.timeline import row_names, sample_rates, stage_spans
from hsf_finetune.schedule.stages import NORMS, Schedule, ScheduleHistory, Stage
from hsf_finetune.system.errors import OutputError


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any schedule of 5 to 30 blocks and 5 to 500 epochs."""
    decoders = draw(st.integers(1, 13))
    names = (
        *(f"encoder{k}" for k in range(1, decoders + 1)),
        *("bottleneck", "bridge"),
        *(f"decoder{k}" for k in range(decoders, 0, -1)),
        "head",
    )
    lengths = draw(st.lists(st.integers(1, 100), min_size=1, max_size=5))
    lengths[-1] = max(lengths[-1], 5)
    rate = st.floats(1e-6, 1e-1)
    stages = tuple(
        Stage(
            draw(st.dictionaries(st.sampled_from([*names, NORMS]), rate, min_size=1, max_size=9)),
            length,
            draw(st.none() | st.integers(1, 5)),
            restarts=draw(st.booleans()),
        )
        for length in lengths
    )
    return Schedule("staged", names, stages)


def bars(
    schedule: Schedule, width: int, characters: CharacterSet = UNICODE_CHARACTERS
) -> dict[str, str]:
    """The characters of each block."""
    lines = draw_as_text(schedule, width, characters).plain.splitlines()
    return {line.split()[0]: line.split()[1] for line in lines[: len(row_names(schedule))]}


@settings(max_examples=40, deadline=None)
@given(schedule=schedules(), width=st.integers(MIN_WIDTH, 200))
def test_a_character_is_frozen_if_and_only_if_all_its_epochs_are(
    schedule: Schedule, width: int
) -> None:
    for name, bar in bars(schedule, width).items():
        trains = [name in schedule.trainable(epoch) for epoch in range(schedule.max_epochs)]
        for cell, glyph in enumerate(bar):
            first = cell * len(trains) // len(bar)
            end = -(-(cell + 1) * len(trains) // len(bar))
            assert (glyph != UNICODE_CHARACTERS.frozen) == any(trains[first:end])


@settings(max_examples=40, deadline=None)
@given(schedule=schedules(), width=st.integers(MIN_WIDTH, 200))
def test_every_block_has_a_line_of_the_same_width_that_fits(schedule: Schedule, width: int) -> None:
    lines = draw_as_text(schedule, width).plain.splitlines()
    assert all(len(line) <= width for line in lines[: len(row_names(schedule)) + 2])
    drawn = bars(schedule, width)
    assert list(drawn)[: len(schedule.blocks)] == list(reversed(schedule.blocks))
    assert (NORMS in drawn) == any(NORMS in stage.rates for stage in schedule.stages)
    assert len({len(bar) for bar in drawn.values()}) == 1


@settings(max_examples=40, deadline=None)
@given(schedule=schedules())
def test_a_higher_rate_is_never_drawn_lower(schedule: Schedule) -> None:
    per_epoch = len(next(iter(bars(schedule, 120).values()))) // schedule.max_epochs
    if per_epoch == 0:
        return
    order = UNICODE_CHARACTERS.frozen + UNICODE_CHARACTERS.levels
    drawn = "".join(bars(schedule, 120).values())
    pairs = sorted(zip(sample_rates(schedule, per_epoch).ravel(), drawn, strict=True))
    heights = [order.index(glyph) for _, glyph in pairs]
    assert heights == sorted(heights)
    assert heights[-1] == len(UNICODE_CHARACTERS.levels)


def test_a_terminal_without_unicode_gets_ascii() -> None:
    schedule = Schedule("gradual", ("encoder1", "head"), (Stage({"head": 1e-3}, 9, 2),) * 2)
    assert draw_as_text(schedule, 80, ASCII_CHARACTERS).plain.isascii()


def test_the_axis_names_where_stages_start_and_which_may_start_earlier() -> None:
    head, more = {"head": 1e-3}, {"head": 1e-3, "decoder1": 1e-3}
    blocks = ("encoder1", "bottleneck", "decoder1", "head")
    stages = (Stage(head, 4), Stage(more, 10, patience_epochs=3), Stage(head, 6))
    schedule = Schedule("staged", blocks, stages)
    *_, ruler, axis, legend = draw_as_text(schedule, 100).plain.splitlines()
    assert axis.split() == ["epoch", "0", "4", "≤14", "≤20"]
    assert axis.index("≤14") == [k for k, mark in enumerate(ruler) if mark == "├"][2]
    assert "may end earlier" in legend

    as_it_went = schedule.with_history(ScheduleHistory(ended={1: 7}))
    *_, axis, legend = draw_as_text(as_it_went, 100).plain.splitlines()
    assert axis.split() == ["epoch", "0", "4", "11", "17"]
    assert "may end earlier" not in legend


def test_a_stage_is_open_from_the_epoch_in_which_it_can_end() -> None:
    # Epoch 0 sets the best; epochs 1 and 2 are not better.
    schedule = Schedule("linear", ("bottleneck", "head"), (Stage({"head": 1e-3}, 9, 2),))
    assert [span.open_from for span in stage_spans(schedule)] == [3]


def test_a_narrow_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="characters per line"):
        draw_as_text(Schedule("full", ("head",), (Stage({"head": 1e-3}, 5),)), MIN_WIDTH - 1)


@settings(max_examples=8, deadline=None)
@given(schedule=schedules())
def test_pixels_are_grey_where_a_block_is_frozen_and_coloured_where_it_trains(
    schedule: Schedule,
) -> None:
    figure = draw_schedule(schedule)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255.0
    axis = next(axis for axis in figure.axes if axis.images)
    for row, name in enumerate(row_names(schedule)):
        for index, stage in enumerate(schedule.stages):
            if stage.length < 0.03 * schedule.max_epochs:
                continue  # its boundary would cover it
            at = (schedule.first_epoch(index) + 0.5 * stage.length, row + 0.5)
            x, y = axis.transData.transform(at)
            colour = pixels[len(pixels) - 1 - round(y), round(x)]
            assert np.allclose(colour, to_rgb(FROZEN), atol=0.01) == (name not in stage.rates)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_picture_is_written_in_the_format_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(schedule_picture, "draw_schedule", draw_schedule)
    schedule = Schedule("full", ("bottleneck", "head"), (Stage({"head": 1e-3}, 5),))
    path = tmp_path / f"plan.{suffix}"
    save_picture(schedule, path)
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    assert path.read_bytes().startswith(starts[suffix])
    if suffix == "png":
        assert imread(path).shape[1] > 800


def test_another_format_is_refused_with_those_that_work(tmp_path: Path) -> None:
    schedule = Schedule("full", ("head",), (Stage({"head": 1e-3}, 5),))
    with pytest.raises(OutputError, match=r"plan\.png"):
        save_picture(schedule, tmp_path / "plan.gif")
