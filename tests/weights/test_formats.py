"""The table of docs/weights.md: what loads of files that the real libraries wrote.

`make docs-table` (HSF_FINETUNE_DOCS_TABLE=write) writes the table anew.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.planning.start import build_network, find_weights, load_weights
from hsf_finetune.weights.sources.given_weights import with_recorded_network
from tests.conftest import CONF, FAST, save_nifti, tiny_case
from tests.weights.format_files import FORMATS, Format

DOCS = Path(__file__).parents[2] / "docs" / "weights.md"
BEGIN, END = "<!-- formats: begin -->", "<!-- formats: end -->"
COLUMNS = (
    "file",
    "network",
    "`models=`",
    "loaded",
    "remapped",
    "fresh",
    "refused",
    "trunk",
    "classes",
    "channels",
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects, each with two contrasts."""
    root = tmp_path_factory.mktemp("scans")
    for number in (1, 2):
        image, label = tiny_case(number)
        start = root / "tiny" / f"sub-{number:02d}" / f"sub-{number:02d}"
        for contrast in ("T1w", "T2w"):
            save_nifti(start.with_name(f"{start.name}_{contrast}.nii.gz"), image)
        save_nifti(start.with_name(f"{start.name}_dseg.nii.gz"), label)
    return root


def documented() -> tuple[str, list[str], str]:
    """The page before the table, the table's lines, and the page after it."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    table, _, after = rest.partition(END)
    return before, table.splitlines(), after


def titles() -> list[str]:
    """The first two cells of each row, as the page should have them."""
    return [f"| {one.file} | {one.network} |" for one in FORMATS]


def test_the_page_has_a_row_for_each() -> None:
    before, lines, after = documented()
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    if os.environ.get("HSF_FINETUNE_DOCS_TABLE") == "write":
        rows = [next((x for x in lines if x.startswith(t)), t) for t in titles()]
        text = "\n".join([BEGIN, *head, *rows, END])
        DOCS.write_text(f"{before}{text}{after}", encoding="utf-8")
        lines = [*head, *rows]
    assert lines[:2] == head
    assert [line[: len(t)] for line, t in zip(lines[2:], titles(), strict=True)] == titles()


@pytest.mark.filterwarnings("ignore:.len.strides")
@pytest.mark.parametrize("one", [pytest.param(f, id=f.name, marks=f.marks) for f in FORMATS])
def test_its_row_is_what_loads(
    one: Format, scans: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Only the file that a run of ours wrote needs a run.
    given = request.getfixturevalue("source_run") if one.write is None else one.write(tmp_path)
    settings = composed(one, scans, given)
    row = loaded(one, settings, discover(settings.datasets, settings.models))
    before, lines, after = documented()
    title = f"| {one.file} | {one.network} |"
    if os.environ.get("HSF_FINETUNE_DOCS_TABLE") == "write":
        lines = [row if line.startswith(title) else line for line in lines]
        DOCS.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]), encoding="utf-8")
    assert row in lines, "make docs-table"


def composed(one: Format, scans: Path, pretrained: Path) -> Settings:
    """The settings of a run, as its command line gives them."""
    contrasts = ", ".join(f"sub-*/*_{c}.nii.gz" for c in ("T1w", "T2w")[-one.channels :])
    names = ", ".join(("T1w", "T2w")[-one.channels :])
    return compose(
        "finetune",
        [
            *(f for f in FAST if not f.startswith("models.")),
            "datasets=tiny",
            f"datasets.main_path={scans}",
            f"datasets.datasets.tiny.patterns.t2.mri=[{contrasts}]",
            f"datasets.channel_names=[{names}]",
            f"finetuning.pretrained={pretrained}",
            *one.overrides,
        ],
        CONF,
    )


def loaded(one: Format, settings: Settings, cohort: Cohort) -> str:
    """The row of a file, from the receipt of a transfer as a run does it."""
    source = find_weights(settings, cohort, Path)
    assert source is not None
    resolved = with_recorded_network(settings, source.checkpoint)
    start = load_weights(resolved, build_network(resolved, cohort), cohort, source)
    counts = Counter(entry.status for entry in start.receipt.entries)
    cells = [
        one.file,
        one.network,
        f"`{settings.models.name}`",
        *(str(counts[s] or "-") for s in ("loaded", "remapped", "fresh", "refused")),
        f"{100 * start.receipt.share_parameters:.3g} %",
        known(source.checkpoint.classes, settings.weights.source_classes),
        known(source.checkpoint.channel_names, settings.weights.source_channels),
    ]
    return "| " + " | ".join(cells) + " |"


def known(recorded: tuple[str, ...] | None, given: list[str] | None) -> str:
    """Who names classes or channels: the file, the user, or nobody."""
    return "yes" if recorded else "given" if given else "no"
