"""The table of named families in docs/weights.md: what loads, how scans are prepared, and equality.

`make docs-table` (HSF_FINETUNE_DOCS_TABLE=write) writes the table anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hsf_finetune.config.compose import compose
from hsf_finetune.config.named_weights import named_weights
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.preprocessing.describe_preprocessing import describe_preprocessing
from hsf_finetune.networks.build import build
from hsf_finetune.networks.pretrained_network import validate_network
from hsf_finetune.weights.sources.given_weights import read_given_weights, with_recorded_network
from hsf_finetune.weights.transfer.pair_tensors import MatchRequest
from tests.closeness import NETWORK, assert_equal_up_to_rounding
from tests.conftest import CONF
from tests.weights.families import FAMILIES, Compared, Family
from tests.weights.small_networks import load

DOCS = Path(__file__).parents[2] / "docs" / "weights.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
COLUMNS = ("`finetuning.pretrained=`", "`models=`", "scans", "loaded", "same output")
MILLIONS = {"small": 14.60, "base": 58.26, "large": 440.30, "huge": 1457.33}
"""Parameters of STU-Net, as its authors count them (arXiv:2304.06716)."""


@pytest.fixture(scope="module")
def base() -> Settings:
    return compose("finetune", ["models=pretrained", "weights.accept_licence=true"], CONF)


def test_every_name_has_a_row() -> None:
    assert {family.name for family in FAMILIES} == named_weights().keys()
    before, lines, after = documented()
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    starts = [f"| `{family.name}` |" for family in FAMILIES]
    if os.environ.get("HSF_FINETUNE_DOCS_TABLE") == "write":
        rows = [next((x for x in lines if x.startswith(s)), s) for s in starts]
        lines = [*head, *rows]
        DOCS.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]), encoding="utf-8")
    assert lines[:2] == head
    assert [line[: len(s)] for line, s in zip(lines[2:], starts, strict=True)] == starts


@torch.no_grad()
@pytest.mark.parametrize("family", [pytest.param(f, id=f.name, marks=f.marks) for f in FAMILIES])
def test_its_row_is_what_happens(
    family: Family, base: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    path, compared = family.write(tmp_path)
    row = taken(family, base, path, compared)
    before, lines, after = documented()
    if os.environ.get("HSF_FINETUNE_DOCS_TABLE") == "write":
        start = f"| `{family.name}` |"
        lines = [row if line.startswith(start) else line for line in lines]
        DOCS.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]), encoding="utf-8")
    assert row in lines, "make docs-table"


def taken(family: Family, base: Settings, path: Path, compared: Compared) -> str:
    """The row of a family, from its description with small widths and a file of its own."""
    named = named_weights()[family.name]
    models = {**named.models.model_dump(exclude_unset=True), **family.models}
    named = named.model_copy(update={"models": validate_network(models)})
    given = base.weights.model_copy(update={"pretrained": family.name, "file": str(path)})
    settings = base.model_copy(update={"weights": named.completed(given)})
    source = read_given_weights(settings)
    checkpoint = source.checkpoint
    resolved = with_recorded_network(settings, checkpoint).models
    names = source.classes if family.classes is None or checkpoint.classes else None
    # Small files have fewer outputs than their description names.
    known, names = names, names or ("background", "A", "B")
    ours = build(resolved, checkpoint.in_channels or len(named.channels), len(names))
    receipt = load(
        *(resolved, ours, checkpoint, names),
        source_classes=known,
        channels=checkpoint.in_channels or len(named.channels),
        matching=MatchRequest(load=settings.weights.load),
    )
    ours.network.eval()
    counted = [entry for entry in receipt.entries if entry.counted]
    filled = sum(entry.filled for entry in counted)
    assert filled == len(counted)
    assert_equal_up_to_rounding(*compared(ours), NETWORK)
    assert checkpoint.preprocessing is not None
    how = describe_preprocessing(checkpoint.preprocessing)
    parts = (how["orientation"], how["spacing_mm"], how["intensity"].partition(", as the")[0])
    part = "" if settings.weights.load == "all" else f" ({settings.weights.load})"
    cells = [
        f"`{family.name}`",
        f"`{resolved.name}`",
        f"{', '.join(parts)}; windows of {how['window_vox']}",
        f"{filled} of {len(counted)}{part}",
        "yes",
    ]
    return "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("size", MILLIONS)
def test_sizes_of_stunet_are_those_of_the_paper(size: str) -> None:
    named = named_weights()[f"stunet_{size}"]
    assert named.classes is not None
    with torch.device("meta"):
        anatomy = build(named.models, 1, classes := len(named.classes))
    widths: list[int] = named.models.features_per_stage  # type: ignore[union-attr]
    # Those of the coarser levels are left in the file.
    heads = sum(classes * (width + 1) for width in widths[1:-1])
    found = sum(block.size for block in anatomy.blocks) + heads
    assert found / 1e6 == pytest.approx(MILLIONS[size], abs=0.01)


def documented() -> tuple[str, list[str], str]:
    """The page before the table, the table's lines, and the page after it."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    table, _, after = rest.partition(END)
    return before, table.splitlines(), after
