"""A wrong key is answered with the right neighbour, at every depth, in lists and in mappings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hsf_finetune.config.compose import compose
from hsf_finetune.system.errors import ConfigError

STAGED = "finetuning=staged"
WRONG_KEYS = [
    # given beside it, the wrong key, the key that is meant
    ("", "sed", "seed"),
    ("", "resum", "resume"),
    ("", "models.lrr", "models.lr"),
    ("", "lightning.max_epoch", "lightning.max_epochs"),
    ("", "logger.projekt", "logger.project"),
    ("", "weights.pretraind", "weights.pretrained"),
    ("", "finetuning.pretraind", "finetuning.pretrained"),
    ("", "finetuning.weights", "finetuning.pretrained"),
    ("", "augmentation.rotation_degrees", "augmentation.rotation_deg"),
    ("", "datasets.trainratio", "datasets.train_ratio"),
    ("models=arunet", "models.hparams.f_map", "models.hparams.f_maps"),
    ("", "augmentations.light.scal", "augmentations.light.scale"),
    ("", "datasets.datasets.phantom.pathh", "datasets.datasets.phantom.path"),
    ("", "datasets.datasets.phantom.exclud", "datasets.datasets.phantom.exclude"),
    (
        "",
        "datasets.datasets.phantom.patterns.left.mrii",
        "datasets.datasets.phantom.patterns.left.mri",
    ),
    (
        "",
        "datasets.datasets.phantom.patterns.left.labelkey",
        "datasets.datasets.phantom.patterns.left.label_key",
    ),
    ("", "datasets.retention.old.pathh", "datasets.retention.old.path"),
    (STAGED, "finetuning.stages.0.lrr", "finetuning.stages.0.lr"),
    (STAGED, "finetuning.stages.2.epoch", "finetuning.stages.2.epochs"),
    (STAGED, "finetuning.stages.1.patience", "finetuning.stages.1.patience_epochs"),
    # names of other programs, and settings of another group
    ("", "models.learning_rate", "models.lr"),
    (STAGED, "finetuning.stages.0.learning_rate", "finetuning.stages.0.lr"),
    (STAGED, "lightning.epochs", "lightning.max_epochs"),
    ("", "finetuning.lr", "models.lr"),
    ("", "finetuning.max_epochs", "lightning.max_epochs"),
    # a name of a cohort, a preset, a series or a stage
    ("", "datasets.datasets.fantom.path", "datasets.datasets.phantom.path"),
    ("", "augmentations.lihgt.scale", "augmentations.light.scale"),
    (
        "",
        "datasets.datasets.phantom.patterns.lft.mri",
        "datasets.datasets.phantom.patterns.left.mri",
    ),
    (STAGED, "finetuning.stages.7.lr", "finetuning.stages.2.lr"),
]


def mistake(*overrides: str, own: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose("finetune", overrides, own)
    return str(caught.value)


def given(beside: str, *overrides: str) -> list[str]:
    return [*([beside] if beside else []), *overrides]


@pytest.mark.parametrize(("beside", "wrong", "meant"), WRONG_KEYS)
def test_on_the_command_line(beside: str, wrong: str, meant: str) -> None:
    text = mistake(*given(beside, f"{wrong}=1"))
    assert f"there is no setting '{wrong}'" in text
    assert f"did you mean '{meant}'?" in text


NAMES = ("fantom", "lihgt", "lft", "old", ".7.")


@pytest.mark.parametrize(
    ("beside", "wrong", "meant"), [row for row in WRONG_KEYS if not any(n in row[1] for n in NAMES)]
)
def test_in_a_file(beside: str, wrong: str, meant: str, tmp_path: Path) -> None:
    """The same keys in an overlay, which adds them to what the groups have."""
    *parents, key = wrong.split(".")
    tree: object = {key: 1}
    if "stages" in parents:
        stage = {"epochs": 1, "freeze_level": 0}
        number = int(parents.pop())
        tree = [{**stage, key: 1} if n == number else stage for n in range(3)]
    for parent in reversed(parents):
        tree = {parent: tree}
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\n" + yaml.safe_dump(tree))
    text = mistake(*given(beside, "experiment=mine"), own=tmp_path)
    group, _, name = meant.rpartition(".")
    shown = name if group == wrong.rpartition(".")[0] else meant
    assert f"{wrong}: there is no such setting; did you mean '{shown}'?" in text


@pytest.mark.parametrize(
    ("beside", "wrong", "listed"),
    [
        ("", "logger.zzz", "a setting of logger: name, project, offline"),
        (STAGED, "finetuning.stages.0.zzz", "finetuning.stages.0: epochs, patience_epochs"),
        ("", "augmentations.light.zzz", "augmentations.light: pipeline, flip"),
        (
            "",
            "datasets.datasets.phantom.patterns.left.zzz",
            "datasets.datasets.phantom.patterns.left: mri, label, key, mri_key, label_key",
        ),
        ("models=segresnet", "models.num_res_units", "init_filters, blocks_down, blocks_up"),
    ],
)
def test_what_is_like_nothing_lists_the_neighbours(beside: str, wrong: str, listed: str) -> None:
    text = mistake(*given(beside, f"{wrong}=1"))
    assert "did you mean" not in text
    assert listed in text


@pytest.mark.parametrize(
    ("beside", "override"),
    [
        (STAGED, "finetuning.stages.0.patience_epochs=2"),
        ("", "datasets.datasets.phantom.exclude=[a]"),
        ("", "datasets.datasets.phantom.labels.9=3"),
        ("", "datasets.datasets.phantom.patterns.left.key=volume"),
        ("", "models.class_weights.CA1=2"),
        ("", "finetuning.lr_factors.encoder1=2"),
        ("", "finetuning.lr_factors={encoder1: 2}"),
        ("models=arunet", "models.hparams.in_channels=1"),
    ],
)
def test_what_a_file_leaves_out_can_be_given(beside: str, override: str) -> None:
    """As with the ++ of Hydra's, which nobody needs to know."""
    assert compose("finetune", given(beside, override)) == compose(
        "finetune", given(beside, f"++{override}")
    )


def test_a_new_cohort_needs_a_plus() -> None:
    text = mistake("datasets.datasets.other.path=x")
    assert "+datasets.datasets.other.path=... for a new one" in text
    other = "datasets.datasets.other"
    names = f"+{other}.labels_names.1=CA1"
    made = compose("finetune", [f"+{other}.path=x", f"+{other}.table=t.csv", names])
    assert made.datasets.datasets["other"].labels_names == {1: "CA1"}


def test_every_mistake_comes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "finetuning" / "mine.yaml"
    file.parent.mkdir()
    stage = {"epochs": 1, "freeze_level": 0, "lrr": 1, "warmup": 2}
    file.write_text(
        yaml.safe_dump(
            {"defaults": ["default"], "strategy": "staged", "stages": [stage], "hed": "copy"}
        )
    )
    text = mistake("finetuning=mine", own=tmp_path)
    for part in (
        "3 settings are wrong:",
        "finetuning.stages.0.lrr: there is no such setting; did you mean 'lr'?",
        "finetuning.stages.0.warmup: should be less than or equal to 1 (found 2)",
        "finetuning.hed: there is no such setting; did you mean 'head'?",
        str(file),
    ):
        assert part in text
