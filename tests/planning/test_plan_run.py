"""What a run refuses of its settings, `plan` and `check` refuse in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.check import check_data as check_data_module
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.volumes import read_volume as read_volume_module
from hsf_finetune.experiment.run import run_experiment
from hsf_finetune.planning.plan_run import check_run, plan_run
from hsf_finetune.planning.start import read_source_checkpoint
from hsf_finetune.system.errors import UserError
from tests.conftest import CONF, FAST

REFUSED = {
    "block of a factor": (["+finetuning.lr_factors.encodr1=0.5"], "encodr1"),
    "depth": (["finetuning.depth=9"], "finetuning.depth=9"),
    "outputs": (["finetuning.out_channels=7"], "out_channels"),
    "channels": (["datasets.channel_names=[T1w,T2w]"], "channel"),
    "no validation": (["lightning.check_val_every_n_epoch=9", "lightning.max_epochs=3"], "=9"),
    "no GPU": (["lightning.accelerator=gpu"], "on this machine"),
    "folds on several devices": (["datasets.fold=all", "lightning.devices=2"], "devices=1"),
}


def composed(data: Path, outputs: Path, source_run: Path, *more: str) -> Settings:
    return compose(
        "finetune",
        [
            "datasets=tiny",
            f"datasets.main_path={data}",
            f"datasets.output_path={outputs}",
            f"finetuning.pretrained={source_run}",
            "finetuning.derive_from={anterior: blob, posterior: blob}",
            *FAST,
            *more,
        ],
        CONF,
    )


@pytest.mark.parametrize(("overrides", "words"), REFUSED.values(), ids=REFUSED)
def test_plan_check_and_finetune_refuse_alike(
    data: Path,
    outputs: Path,
    source_run: Path,
    overrides: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = composed(data, outputs, source_run, *overrides)
    found = [f for f in check_run(settings, read_source_checkpoint).findings if f.tier == "refused"]
    assert words in str(found[0].error())
    for name in ("check_cases", "read_volume"):
        for module in (check_data_module, read_volume_module):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, None)
    for refuse in (plan_run, run_experiment):
        with pytest.raises(UserError) as caught:
            refuse(settings)
        assert words in str(caught.value)
        assert caught.value.what == found[0].what
    assert not outputs.exists()


def test_check_does_not_refuse_what_a_run_accepts(
    data: Path, outputs: Path, source_run: Path
) -> None:
    report = check_run(composed(data, outputs, source_run), read_source_checkpoint)
    assert not report.count("refused")


def test_weights_that_would_have_to_be_fetched_are_left_out(
    data: Path, outputs: Path, source_run: Path
) -> None:
    remote = "finetuning.pretrained=https://127.0.0.1:9/model.ckpt"
    fine = composed(data, outputs, source_run, remote)
    assert not check_run(fine, read_source_checkpoint).count("refused")
    wrong = composed(data, outputs, source_run, remote, "finetuning.depth=9")
    assert check_run(wrong, read_source_checkpoint).count("refused") == 1
