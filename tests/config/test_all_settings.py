"""What a run would refuse whatever the data are is refused by every command, before data are read."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.config.compose import compose
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF, FAST

STAGE = "finetuning.stages=[{epochs: 1, freeze_level: 0"
KEEP_EVERYWHERE = "finetuning.keep_old=everywhere"
REFUSED = [
    (
        ["finetuning=staged", f"{STAGE}, augmentation: lihgt}}]"],
        "finetuning.stages.0.augmentation: there is no preset 'lihgt'; did you mean 'light'?",
    ),
    (
        ["finetuning=staged", "finetuning.stages.1.augmentation=zzz"],
        "finetuning.stages.1.augmentation: there is no preset 'zzz'; known: none, light, mri",
    ),
    (
        ["finetuning=staged", "finetuning.stages.2.augmentation=zzz", "lightning.max_epochs=1"],
        "finetuning.stages.2.augmentation: there is no preset 'zzz'",
    ),
    (
        ["finetuning=staged", "augmentation=hsf"],
        "finetuning.stages.0.augmentation: HSF's TorchIO pipeline works in the loader",
    ),
    (
        ["finetuning=staged", f"{STAGE}, augmentation_strength: 2}}]", "augmentation=hsf"],
        "HSF's TorchIO pipeline works in the loader",
    ),
    (["finetuning=staged", "finetuning.stages=[]"], "finetuning.stages: strategy 'staged' needs"),
    (["finetuning=staged", "finetuning.stages.0.blocks=[]"], "finetuning.stages.0.blocks"),
    (
        ["finetuning=gradual", "lightning.max_epochs=2"],
        "lightning.max_epochs: finetuning=gradual has 3 phases",
    ),
    (["finetuning=lpft", "lightning.max_epochs=1"], "finetuning=lpft has 2 phases"),
    (["reset=[epoch]"], "reset: only a run that is resumed can be reset"),
    (["finetuning.lr_power=2"], "lr_power would be ignored: only finetuning.lr_schedule=poly"),
    (["models.lr=inf"], "models.lr: should be a finite number"),
    (["models.loss=dice", "models.label_smoothing=0.1"], "loss 'dice' has no cross-entropy"),
    (["augmentation=hsf", "augmentation.mixup_p=0.1"], "pipeline 'torchio_hsf' mixes no volumes"),
    (["datasets.fold=5"], "datasets.fold: should be 0 to 4"),
    (
        ["datasets.fold=all", "datasets.train_on_all=true"],
        "datasets.fold: 'all' contradicts datasets.train_on_all",
    ),
    (
        ["finetuning=selftrain", "finetuning.selftrain.start=teacher", KEEP_EVERYWHERE],
        "finetuning.keep_old: everywhere contradicts finetuning.selftrain.start=teacher",
    ),
    (["lightning.accelerator=tpuu"], "lightning.accelerator: should be"),
    (["lightning.precision=17"], "lightning.precision: should be"),
    (["lightning.strategy=fsdp"], "blocks cannot unfreeze"),
    *(([f"lightning.devices={d}"], "lightning.devices: should") for d in ("0", "[]", "two")),
]


@pytest.mark.parametrize(
    ("command", "overrides", "said"),
    # The settings are read in one place: each of them by one command, each command some of them.
    [(command, *one) for command, one in zip(cycle(["plan", "check", "finetune"]), REFUSED)],
)
def test_every_command_refuses(
    command: str,
    overrides: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There are no data at all, so that whoever looks for them says so."""
    where = ["datasets=tiny", f"datasets.main_path={tmp_path}", "--config-dir", str(CONF)]
    given = [o for o in FAST if not any(o.split("=")[0] == g.split("=")[0] for g in overrides)]
    with pytest.raises(SystemExit) as caught:
        main([command, *where, *given, f"datasets.output_path={tmp_path}", *overrides])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_retention_needs_a_source_model() -> None:
    cohort = "datasets.retention.old"
    old = [f"{cohort}.path=x", f"{cohort}.table=t.csv", f"{cohort}.labels_names.1=CA1"]
    assert compose("finetune", old).datasets.retention["old"].path == "x"
    with pytest.raises(ConfigError, match=r"datasets\.retention: scores what is forgotten"):
        compose("finetune", [*old, "finetuning.pretrained=none"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["finetuning=staged"],
        ["finetuning=staged", "augmentation=light"],
        ["finetuning=staged", f"{STAGE}}}]", "augmentation=hsf"],
        [
            "finetuning=staged",
            "finetuning.stages.0.augmentation=mine",
            "+augmentation@augmentations.mine=mri",
        ],
        ["finetuning.stages=[{epochs: 1, freeze_level: 0, augmentation: zzz}]"],
        ["reset=[epoch]", "resume=auto"],
        ["datasets.fold=8", "datasets.folds=9"],
        ["lightning.devices=2"],
        ["lightning.devices=-1"],
        ["lightning.devices='0,1'"],
        ["lightning.devices=[1]"],
        ["lightning.precision=32"],
        ["lightning.strategy=ddp"],
    ],
)
def test_what_is_allowed(overrides: list[str]) -> None:
    assert compose("finetune", overrides)
