"""Which scans are used without a label, and which never are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.data.splits import split_cases
from hsf_finetune.planning.plan_run import plan_run
from hsf_finetune.planning.unlabelled import UnlabelledScans, find_unlabelled
from tests.conftest import CONF, FAST, save_nifti, tiny_case


def settings_of(data: Path, *more: str) -> Settings:
    """Subject 1 trains, 2 validates, 3 tests."""
    split = data / "split.json"
    split.write_text(
        json.dumps({"train": ["sub-01"], "validation": ["sub-02"], "test": ["sub-03"]})
    )
    where = [f"datasets.main_path={data}", f"datasets.split_file={split}"]
    tuning = ["finetuning=selftrain", "finetuning.pretrained=none"]
    return compose("finetune", ["datasets=tiny", *where, *tuning, *FAST, *more], CONF)


def found(settings: Settings) -> UnlabelledScans:
    cohort = discover(settings.datasets, settings.models)
    return find_unlabelled(
        settings.datasets, cohort, split_cases(cohort.cases, settings.datasets, 0)
    )


def reasons(scans: UnlabelledScans) -> dict[str, str]:
    return {path.name: why.partition(":")[0] for path, why in scans.left_out.items()}


@pytest.mark.parametrize("given", ["tiny", "tiny/**/*_T2w.nii.gz", "{data}/tiny"])
def test_scans_of_the_split_are_left_out(own_data: Path, given: str) -> None:
    scans = found(settings_of(own_data, f"datasets.unlabelled={given.format(data=own_data)}"))
    assert [scan.channels[0].path.name for scan in scans.scans] == [
        "sub-04_T2w.nii.gz",
        "sub-05_T2w.nii.gz",
    ]
    assert {name: why for name, why in reasons(scans).items() if "T2w" in name} == dict.fromkeys(
        (f"sub-0{n}_T2w.nii.gz" for n in (1, 2, 3)), "used by the run with a label"
    )
    assert "2 of them have a label, which is not used" in "\n".join(scans.lines())


@pytest.mark.parametrize(
    ("copied", "name", "expected"),
    [
        (1, "sub-77", "used by the run with a label"),
        (3, "sub-77", "used by the run with a label"),
        (None, "sub-02", "of a subject that validates or tests"),
        (None, "sub-03", "of a subject that validates or tests"),
        (None, "sub-01", None),
        (None, "sub-77", None),
    ],
)
def test_copies_and_further_scans_of_known_people(
    own_data: Path, copied: int | None, name: str, expected: str | None
) -> None:
    path = own_data / "more" / name / f"{name}_T2w.nii.gz"
    save_nifti(path, tiny_case(9)[0])
    if copied:
        shutil.copyfile(own_data / "tiny" / f"sub-0{copied}" / f"sub-0{copied}_T2w.nii.gz", path)
    save_nifti(own_data / "more" / "sub-88" / "sub-88_T2w.nii.gz", tiny_case(8)[0])
    settings = settings_of(own_data, "datasets.unlabelled=more")
    assert reasons(found(settings)).get(path.name) == expected
    data = settings.datasets.model_copy(update={"unlabelled_held_out": True})
    allowed = found(settings.model_copy(update={"datasets": data}))
    known = expected == "used by the run with a label"
    assert reasons(allowed).get(path.name) == (expected if known else None)


@pytest.mark.parametrize("place", ["more", "tiny/more"])
@pytest.mark.parametrize(
    "name", ["sub-02_ses-2_T2w", "sub-02_acq-hi_T2w", "SUB-02_T1w", "sub_02_ses-2_T2w"]
)
def test_the_people_of_other_files_do_not_hide_those_held_out(
    own_data: Path, name: str, place: str
) -> None:
    for number, other in enumerate((name, "pilot", "sub-07_T2w")):
        save_nifti(own_data / place / f"{other}.nii.gz", tiny_case(50 + number)[0])
    scans = found(settings_of(own_data, f"datasets.unlabelled={place}"))
    assert reasons(scans) == {f"{name}.nii.gz": "of a subject that validates or tests"}


def test_a_further_scan_of_a_person_that_a_table_names_is_known(own_data: Path) -> None:
    lines = ["image,label,subject"]
    for number, person in enumerate(("Ann", "Bo", "Eve"), start=1):
        image, label = tiny_case(number)
        save_nifti(own_data / "lab" / f"e{number}_T2w.nii.gz", image)
        save_nifti(own_data / "lab" / f"e{number}_seg.nii.gz", label)
        lines.append(f"e{number}_T2w.nii.gz,e{number}_seg.nii.gz,{person}")
    (own_data / "lab" / "cases.csv").write_text("\n".join(lines))
    for number in (2, 7):
        save_nifti(own_data / "lab" / f"e{number}_ses-2_T2w.nii.gz", tiny_case(40 + number)[0])
    settings = settings_of(own_data, "datasets.unlabelled=lab/*_ses-2_*")
    tiny = settings.datasets.datasets["tiny"]
    update = {"path": "lab", "patterns": {}, "table": "cases.csv"}
    split = {"train": ["Ann"], "validation": ["Bo"], "test": ["Eve"]}
    (own_data / "split.json").write_text(json.dumps(split))
    datasets = {"tiny": tiny.model_copy(update=update)}
    data = settings.datasets.model_copy(update={"datasets": datasets})
    scans = found(settings.model_copy(update={"datasets": data}))
    assert reasons(scans)["e2_ses-2_T2w.nii.gz"] == "of a subject that validates or tests"
    assert [scan.name for scan in scans.scans] == ["e7_ses-2_T2w"]


def test_what_cannot_be_read_is_left_out_with_its_reason(own_data: Path) -> None:
    save_nifti(own_data / "more" / "sub-88_T2w.nii.gz", tiny_case(8)[0])
    (own_data / "more" / "sub-89_T2w.nii.gz").write_bytes(b"no image")
    scans = found(settings_of(own_data, "datasets.unlabelled=[more,more/sub-88_T2w.nii.gz]"))
    assert len(scans.scans) == 1
    assert reasons(scans)["sub-89_T2w.nii.gz"] == "not readable"


def test_of_scans_with_the_same_content_one_is_used(own_data: Path) -> None:
    first = save_nifti(own_data / "more" / "a" / "sub-87_T2w.nii.gz", tiny_case(7)[0])
    for name in ("sub-88", "sub-89"):
        (own_data / "more" / f"{name}_T2w.nii.gz").write_bytes(first.read_bytes())
    scans = found(settings_of(own_data, "datasets.unlabelled=more"))
    assert [scan.channels[0].path for scan in scans.scans] == [first]
    assert [*scans.left_out.values()] == [f"given twice: the same as {first}"] * 2
    assert "left out: 2 given twice (ledger.csv)" in "\n".join(scans.lines())


def test_the_plan_says_what_is_going_to_be_learned_from(own_data: Path) -> None:
    setup = plan_run(settings_of(own_data, "datasets.unlabelled=tiny"))
    text = "\n".join(str(part) for part in setup.tables())
    assert "unlabelled: 2 scans of 2 subjects" in text
    assert "2 runs, the teacher as above, and 1 student whose epochs draw 3 cases, not 1" in text


def test_the_plan_counts_the_runs_of_all_folds(own_data: Path) -> None:
    save_nifti(own_data / "more" / "sub-88_T2w.nii.gz", tiny_case(88)[0])
    folds = ["datasets.split_file=null", "datasets.fold=all", "datasets.folds=2"]
    setup = plan_run(settings_of(own_data, "datasets.unlabelled=more", *folds))
    text = "\n".join(str(part) for part in setup.tables())
    assert "self-training: 6 runs, 2 for each of 2 folds and the final model, the teacher" in text
