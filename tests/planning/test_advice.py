"""Advice follows from what was seen, each piece with a reason and an override that composes."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.check.check_data import check_data
from hsf_finetune.cli.check_command import check
from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.phantom.write_phantoms import PhantomCohort, write_phantoms
from hsf_finetune.planning.advice import Advice, Diagnosis, give_advice
from hsf_finetune.planning.diagnosis import advise
from hsf_finetune.planning.start import read_source_checkpoint
from hsf_finetune.schedule.strategies import plan_schedule
from tests.conftest import CONF, FAST
from tests.schedule.planning import THREE_LEVELS

PLAIN = Diagnosis(subjects=30, validating=6, folds=None, steps=12, epochs=50, pretrained=True)
SETTINGS = compose("finetune", ["datasets=phantom"])


def by_subject(diagnosis: Diagnosis) -> dict[str, Advice]:
    return {one.about: one for one in give_advice(diagnosis, SETTINGS)}


@pytest.mark.parametrize(
    ("contrast", "protocol", "override"),
    [
        ("", "", ""),
        ("darker", "", "finetuning.mode=encoder"),
        ("", "finer", "finetuning.mode=decoder"),
        ("darker", "finer", "finetuning.mode=both"),
    ],
)
def test_what_is_new_decides_what_trains(contrast: str, protocol: str, override: str) -> None:
    said = by_subject(replace(PLAIN, contrast=contrast, protocol=protocol))["what trains"]
    assert said.override == override
    assert contrast in said.reason
    assert protocol in said.reason


def test_few_subjects_are_folded_and_stay_near_what_was_known() -> None:
    few = by_subject(replace(PLAIN, subjects=3, folds=3, protocol="finer"))
    assert few["depth"].override == ""
    assert by_subject(replace(PLAIN, subjects=3))["depth"].override == "finetuning.regularise=l2sp"
    assert "3 folds" in few["validation"].what
    assert "depth" not in by_subject(PLAIN)
    assert by_subject(replace(PLAIN, subjects=12))["validation"].override == "datasets.fold=all"
    assert by_subject(PLAIN)["validation"].override == ""


def test_scans_without_labels_are_for_few_subjects() -> None:
    few = by_subject(replace(PLAIN, subjects=3))["scans without labels"]
    assert few.override == "finetuning=selftrain datasets.unlabelled=FOLDER"
    assert "scans without labels" in by_subject(replace(PLAIN, subjects=5))
    assert "scans without labels" not in by_subject(replace(PLAIN, subjects=6))


def test_a_source_that_draws_well_keeps_the_outlines_of_classes_that_are_split() -> None:
    split = replace(PLAIN, subjects=5, splits=("front", "back"), dice=0.9)
    said = by_subject(split)["outlines"]
    assert said.override == "finetuning.keep_old=everywhere"
    assert "front, back together" in said.what
    for other in ({"dice": 0.8}, {"dice": math.nan}, {"subjects": 30}, {"splits": ()}):
        assert "outlines" not in by_subject(replace(split, **other))


def test_classes_that_may_come_out_of_others_are_said_first() -> None:
    derive_from = {"front": "whole", "CA2/3": ["CA2", "CA3"]}
    first = next(iter(give_advice(replace(PLAIN, derive_from=derive_from), SETTINGS)))
    assert first.override == "'finetuning.derive_from={front: whole, CA2/3: [CA2, CA3]}'"
    assert "whole, CA2, CA3" in first.what


def test_a_model_that_is_near_moves_little() -> None:
    assert by_subject(replace(PLAIN, dice=0.9))["learning rate"].override == "models.lr=3e-4"
    assert by_subject(replace(PLAIN, dice=0.2))["learning rate"].override == ""


@given(
    st.integers(1, 200),
    st.integers(1, 100),
    st.booleans(),
    st.sampled_from(["", "darker"]),
    st.sampled_from(["", "finer"]),
    st.floats(0, 1) | st.just(math.nan),
    st.sampled_from([(), (0.5, 0.5, 1.0)]),
)
def test_every_override_composes_and_together_they_reach_enough_steps(
    subjects: int,
    steps: int,
    pretrained: bool,
    contrast: str,
    protocol: str,
    dice: float,
    spacing: tuple[float, ...],
) -> None:
    diagnosis = Diagnosis(
        subjects,
        1,
        2 if 1 < subjects < 8 else None,
        steps,
        10,
        pretrained,
        contrast,
        protocol,
        dice,
        spacing,
    )
    said = list(give_advice(diagnosis, SETTINGS))
    assert all(one.what and one.reason for one in said)
    overrides = [word for one in said for word in shlex.split(one.override)]
    assert len({o.partition("=")[0] for o in overrides}) == len(overrides)
    length = [int(o.partition("=")[2]) for o in overrides if o.startswith("lightning.max_epochs=")]
    assert not pretrained or all(epochs * steps >= 400 for epochs in length)
    assert not any(o.startswith("finetuning.unfreeze_frequency") for o in overrides)


def settings_of(*given: str) -> Settings:
    return compose("finetune", ["datasets=phantom", *given])


def planned_epochs(given: Settings) -> int:
    return plan_schedule(THREE_LEVELS, given.finetuning, given.models, given.lightning).max_epochs


@pytest.mark.parametrize("epochs", [10, 50])
def test_the_epochs_hold_with_and_without_the_mode_that_is_advised(epochs: int) -> None:
    said = by_subject(replace(PLAIN, epochs=epochs, protocol="finer"))
    mode, length = said["what trains"].override, said["epochs"].override
    for overrides, strategy in (([mode, length], "hsf"), ([length], "full")):
        regime = settings_of(*overrides)
        assert regime.finetuning.chosen_strategy == strategy
        assert planned_epochs(regime) == max(epochs, 34)
    assert by_subject(PLAIN)["epochs"].override == ""
    hsf = give_advice(replace(PLAIN, epochs=10), settings_of("finetuning.mode=decoder"))
    assert "lightning.max_epochs=34" in [one.override for one in hsf]


def test_all_overrides_compose() -> None:
    for contrast, protocol in (("", ""), ("a", ""), ("", "b"), ("a", "b")):
        for subjects in (3, 7, 12, 30):
            diagnosis = replace(
                PLAIN,
                subjects=subjects,
                contrast=contrast,
                protocol=protocol,
                steps=1,
                dice=0.9,
                spacing_mm=(1.0, 1.0, 1.0),
                splits=("a", "c"),
                derive_from={"a": "b"},
            )
            given = [
                word
                for one in give_advice(diagnosis, SETTINGS)
                for word in shlex.split(one.override)
            ]
            compose("finetune", ["datasets=phantom", *given])


def advised(given: list[str]) -> dict[str, Advice]:
    settings = compose("finetune", given, CONF)
    report = check_data(settings, read_source_checkpoint)
    return {one.about: one for one in advise(settings, report)}


def test_it_looks_at_data_and_weights(data: Path, tmp_path: Path, source_run: Path) -> None:
    given = [
        "datasets=tiny",
        f"datasets.main_path={data}",
        f"datasets.output_path={tmp_path}",
        f"finetuning.pretrained={source_run}",
        *FAST,
        "finetuning.derive_from={anterior: blob, posterior: blob}",
    ]
    said = advised(given)
    assert said["what trains"].override == "finetuning.mode=decoder"
    assert "anterior, posterior are drawn finer" in said["what trains"].reason
    same = [*given[:-1], "datasets=tiny_source"]
    said = advised(same[1:])
    assert said["what trains"].override == ""
    assert not list(tmp_path.iterdir())


def test_no_model_is_trained_for_phantoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path / "cache"))
    write_phantoms(tmp_path / "data", PhantomCohort(0, 1, 2, (16, 24, 16), 2.0))
    with pytest.raises(SystemExit) as stop:
        main(["advise", "datasets=custom", f"datasets.main_path={tmp_path / 'data'}", *FAST])
    assert stop.value.code == 2
    assert "the phantom source model does not exist yet" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_check_ends_with_it(
    data: Path, tmp_path: Path, source_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["datasets=tiny_source", f"datasets.main_path={data}", *FAST]
    folder = tmp_path / "report"
    assert check(given, config_dir=CONF, output=folder) == 0
    said = capsys.readouterr().out
    assert "hsf-finetune advise, with finetuning.pretrained=PATH" in said
    assert "what trains" not in said
    given.append(f"finetuning.pretrained={source_run}")
    assert check(given, config_dir=CONF, output=folder) == 0
    said = capsys.readouterr().out
    assert "what trains: everything" in said
    assert "because neither another contrast nor another protocol" in said
