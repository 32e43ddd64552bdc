"""A case trained a model where its file did, under whatever name; a name alone may be another's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.data.discovery.cases import discover
from hsf_finetune.evaluation.compare_runs import compare_runs
from hsf_finetune.evaluation.evaluate import evaluate_run, evaluate_weights
from hsf_finetune.evaluation.known_cases import source_trained_on, trained_on
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.report.save_report import save_report
from hsf_finetune.system.errors import DataError
from tests.conftest import CONF, FAST, save_nifti, tiny_case

KNOWN = "which also trained the pretrained model"


def given(data: Path, *more: str) -> list[str]:
    return ["datasets=tiny_source", f"datasets.main_path={data}", *more]


def test_another_dataset_of_the_same_names_did_not_train(source_run: Path, own_data: Path) -> None:
    for number in range(1, 6):
        name = f"sub-{number:02d}/sub-{number:02d}"
        image, label = tiny_case(number + 40)
        save_nifti(own_data / "tiny" / f"{name}_T2w.nii.gz", image)
        save_nifti(own_data / "tiny" / f"{name}_dseg.nii.gz", label)
    found = evaluate_weights(source_run, given(own_data), CONF, device="cpu")
    assert "on 5 cases; NSD" in found.title


def test_the_same_files_trained_under_any_name(
    source_run: Path, data: Path, own_data: Path
) -> None:
    cases, copies = (
        discover(compose("finetune", given(folder), CONF).datasets).cases
        for folder in (data, own_data)
    )
    renamed = [replace(case, name=f"other__{case.name}") for case in cases]
    assert len(trained_on(source_run, renamed)) == 3
    assert trained_on(source_run, copies) == trained_on(source_run, cases)


def test_cases_that_were_moved_are_known_by_name(
    source_run: Path, own_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(source_run, run)
    ledger = (run / "ledger.csv").read_text().splitlines()
    ledger[1:] = [f"/nowhere{line}" for line in ledger[1:]]
    (run / "ledger.csv").write_text("\n".join(ledger))
    settings = compose("finetune", given(own_data), CONF)
    cases = discover(settings.datasets).cases
    assert len(trained_on(run, cases)) == 3
    (run / "ledger.csv").write_text("what,else")
    with pytest.raises(DataError, match="the ledger of the run cannot be read"):
        trained_on(run, cases)


@pytest.fixture(scope="module")
def seen(data: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose validation cases are one that the source trained on, and one that it did not."""
    folder = tmp_path_factory.mktemp("seen")
    split = json.loads((source_run / "splits.json").read_text())
    subjects = {side: [name.split("__")[1] for name in split[side]] for side in split["subjects"]}
    (known, *rest), (new, other) = subjects["train"], subjects["validation"]
    own = {"train": [*rest, other], "validation": [known, new]}
    (folder / "split.json").write_text(json.dumps(own))
    overrides = [
        f"datasets.split_file={folder / 'split.json'}",
        f"finetuning.pretrained={source_run}",
        f"run_dir={folder / 'run'}",
        "lightning.max_epochs=1",
    ]
    return run_experiment(compose("finetune", [*given(data), *FAST, *overrides], CONF)).folder


def test_it_is_said_that_cases_trained_the_pretrained_model(
    data: Path, seen: Path, source_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = f"2 validation cases, 1 of {KNOWN}"
    assert f"on {found}; NSD" in evaluate_run(seen, device="cpu").title
    compared = compare_runs([seen])
    assert compared.title == f"2 validation cases of 2 subjects, 1 of {KNOWN}"
    save_report(seen, tmp_path / "report.html", 0, "cpu")
    text = " ".join((tmp_path / "report.html").read_text().split())
    assert f"Before and after: validation cases, 1 of {KNOWN}" in text
    assert "no measure of new scans: the pretrained model has seen these cases" in text
    assert "fine-tuning helped" not in text
    again = [f"datasets.split_file={seen.parent / 'split.json'}", f"finetuning.pretrained={seen}"]
    more = [f"run_dir={tmp_path / 'run'}", "lightning.max_epochs=1"]
    run_experiment(compose("finetune", [*given(data), *FAST, *again, *more], CONF))
    said = " ".join(capsys.readouterr().out.split())
    assert said.index(f"warning: {found}") < said.index("epoch 0/0")
    assert f"epoch on 2 validation cases of 2 subjects, 1 of {KNOWN}" in said


def test_a_source_has_trained_on_what_its_own_source_did(seen: Path, data: Path) -> None:
    cases = discover(compose("finetune", given(data), CONF).datasets).cases
    assert len(source_trained_on(seen, cases)) == 5 - 1
    assert source_trained_on("hf://somebody/model", cases) == ()
