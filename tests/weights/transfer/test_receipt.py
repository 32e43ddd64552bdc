"""The receipt reads well on a terminal and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from hsf_finetune.weights.transfer.class_rules import ClassRule
from hsf_finetune.weights.transfer.input_rules import InputRule
from hsf_finetune.weights.transfer.receipt import Receipt, TensorEntry

LONG = "trunk.model.1.submodule.1.submodule.0.conv.unit0.conv"
RECEIPT = Receipt(
    source="best.ckpt",
    digest="0" * 64,
    entries=(
        TensorEntry(f"{LONG}.weight", "encoder1", "loaded", (4, 1, 3), (4, 1, 3)),
        TensorEntry(
            f"{LONG}.bias", "encoder1", "refused", (8,), (4,), "(8,) in it, (4,) in the network"
        ),
        TensorEntry("norm.mean", "encoder1", "loaded", (4,), (4,), parameter=False),
        TensorEntry("head.bias", "head", "remapped", (2,), (3,), "class by class", trunk=False),
        TensorEntry("a.b", "head", "loaded", (2,), (2,), trunk=False, origin="x.y", how="order"),
    ),
    unused=tuple(f"{LONG}.{i}.weight" for i in range(20)),
    channels=(
        ClassRule("background", "copied", ("background",), (0,)),
        ClassRule("anterior", "split", ("hippocampus",), (1,), -0.6931),
        ClassRule("new [thing]", "from background", ("background",), (0,), -0.6931, "a note"),
    ),
    dropped=("CSF",),
    renamed="'module.' removed",
    inputs=(
        InputRule("T1w", "copied", ("T1w",), (1.0, 0.0)),
        InputRule("FLAIR", "zero", (), (0.0, 0.0)),
    ),
    dropped_inputs=("PD",),
    origin={"licence": "MIT", "format": "a [bundle]", "citation": None},
)


def test_shares_count_the_trunk_only() -> None:
    assert RECEIPT.share_tensors == pytest.approx(2 / 3)
    assert RECEIPT.share_parameters == pytest.approx(12 / 16)
    assert RECEIPT.share_loaded == RECEIPT.share_tensors
    assert [entry.name for entry in RECEIPT.mismatches] == [f"{LONG}.bias"]


def test_plain_survives_json() -> None:
    plain = RECEIPT.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["counts"] == {"loaded": 3, "refused": 1, "remapped": 1}
    assert plain["entries"][0]["target_shape"] == [4, 1, 3]


def test_table_fits_a_terminal_and_says_it_all() -> None:
    console = Console(width=99, file=io.StringIO(), force_terminal=False)
    console.print(RECEIPT.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) < 100
    for piece in (
        "encoder1",
        "split of hippocampus (bias -0.693)",
        "new [thing]",
        "a note",
        "66.7%",
        "'module.' removed",
        "CSF",
        r"'finetuning.derive_from={new \[thing\]: CSF}'",
        "  from background (bias",
        "(8,) in it, (4,) in the network",
        f"20 tensors of the checkpoint not used: {LONG[:40]}",
        "and 12 more groups",
        "1 tensor matched by order and shape:",
        "a.b from x.y",
        "zero - starts with zero weights",
        "not used: PD",
        "Origin: format a [bundle], licence MIT.",
    ):
        assert piece in text


def test_channels_that_stay_what_they_are_need_no_table() -> None:
    console = Console(width=99, file=io.StringIO(), force_terminal=False)
    same = (InputRule("T1w", "copied", ("T1w",), (1.0,)),)
    console.print(replace(RECEIPT, inputs=same).table())
    assert "channel" not in console.file.getvalue().partition("Trunk")[0]  # type: ignore[attr-defined]
