"""init on copies of real cases: the YAML composes, and discovery finds every case by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort, discover
from hsf_finetune.data.preprocessing.load_case import load_case
from hsf_finetune.describe.describe_folder import describe_folder
from tests.describe import layouts
from tests.describe.layouts import FOUR, MORE, NAMES, Expected, Layout


def composed(yaml: Path, *overrides: str) -> Settings:
    return compose("train", [f"datasets={yaml.stem}", *overrides], yaml.parent.parent)


def found(cohort: Cohort, root: Path) -> set[Expected]:
    def ref(volume: object) -> tuple[str, str | None]:
        return volume.path.relative_to(root.resolve()).as_posix(), volume.key  # type: ignore[attr-defined]

    return {
        Expected(tuple(map(ref, case.images)), ref(case.label), case.subject)
        for case in cohort.cases
    }


@pytest.mark.parametrize("layout", [*FOUR, *MORE], ids=lambda layout: layout.__name__)
def test_the_yaml_gives_every_case_with_its_label_and_subject(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = layouts.sources(tmp_path / "sources")
    expected = layout(tmp_path / "lab", cases)
    yaml = describe_folder(tmp_path / "lab", tmp_path / "conf" / "datasets" / "mine.yaml")
    settings = composed(yaml)
    cohort = discover(settings.datasets, settings.models)
    assert found(cohort, tmp_path / "lab") == {*expected}
    assert len(cohort.cases) == len(expected)
    said = capsys.readouterr().out
    assert "datasets=mine" in said
    named = layout in FOUR or layout is layouts.msd
    assert cohort.classes.foreground == (
        NAMES if named else tuple(f"label_{value}" for value in cases[0].values)
    )
    assert ("no table names" in said) == (not named)
    for note in said.partition("unsure (")[2].partition("written:")[0].splitlines()[1:]:
        assert note.partition(": ")[2][:40] in " ".join(yaml.read_text().replace("#", "").split())
    load_case(cohort.cases[0])


@pytest.mark.parametrize(
    ("layout", "notes"),
    [
        (layouts.bids, ["T1w images fit the labels too; T2w is taken"]),
        (layouts.nnunet_raw, []),
        (layouts.several_channels, ["t1 and t2 share a label", "no table names"]),
        (layouts.names_without_digits, ["a table lists them", "no table names"]),
        (layouts.glued_sides, ["no table names", "names like c00L_image.nii.gz end in a side"]),
        (
            layouts.one_hdf5_file,
            ["a table lists them", "no table names", "do not give the voxel size"],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_certain_is_marked_above_its_key(
    layout: Layout, notes: list[str], tmp_path: Path
) -> None:
    layout(tmp_path / "lab", layouts.sources(tmp_path / "sources"))
    yaml = describe_folder(tmp_path / "lab", tmp_path / "mine.yaml")
    marked = [line for line in yaml.read_text().splitlines() if "# unsure:" in line]
    assert len(marked) == len(notes)
    assert all(any(note in line for line in marked) for note in notes)


@pytest.mark.parametrize("layout", [layouts.bids, layouts.one_hdf5_file])
def test_every_key_has_a_comment_above_it(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path / "lab", layouts.sources(tmp_path / "sources"))
    lines = describe_folder(tmp_path / "lab", tmp_path / "mine.yaml").read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if re.match(r" {0,4}\w+:", line)]
    assert [lines[n].strip() for n in keys if "#" not in lines[n - 1]] == []
    assert {"main_path", "path", "labels", "labels_names", "subject", "exclude"} <= {
        lines[n].partition(":")[0].strip() for n in keys
    }
