"""What a source model cannot teach is refused, with the lines to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.planning.plan_run import plan_run
from hsf_finetune.system.errors import ConfigError
from tests.training.test_distillation import KEEP, settings_of

NOT_DRAWN = "~datasets.datasets.tiny.unannotated"


@pytest.mark.parametrize(
    ("derive_from", "more", "expected"),
    [
        ("{}", ["models.labels_names=[front]", NOT_DRAWN], "no blob"),
        ("{}", [NOT_DRAWN], r"unannotated=\[blob"),
        ("{}", ["finetuning.head=fresh"], "come from no class"),
        ("{front: blob}", [NOT_DRAWN], "nothing to teach"),
    ],
)
def test_refused(
    data: Path, source_run: Path, derive_from: str, more: list[str], expected: str
) -> None:
    settings = settings_of(data, data, source_run, KEEP, *more, derive_from=derive_from)
    with pytest.raises(ConfigError, match=expected):
        plan_run(settings, forecast=False)


def test_without_a_source_model(data: Path, outputs: Path) -> None:
    with pytest.raises(ConfigError, match="needs a source model"):
        settings_of(data, outputs, Path("none"), KEEP, "~datasets.retention.old")
