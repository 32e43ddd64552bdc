"""What `hsf-finetune learn` says of the earlier cases, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.experiment.learn import LearnResult
from hsf_finetune.experiment.run_result import RunResult


@pytest.mark.parametrize(
    ("lost", "trained", "code", "expected"),
    [
        ({"a": -0.02, "b": 0.004}, "", 0, "cases: Dice +0.008 on average, -0.004 at worst"),
        ({"a": -0.02, "b": 0.004}, ", which trained", 0, "cases, which trained: Dice +0.008 on"),
        ({"a": -0.02, "b": 0.006}, "", 1, "lost 0.006 of its Dice: b"),
    ],
)
def test_earlier_cases(
    lost: dict[str, float],
    trained: str,
    code: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = LearnResult(RunResult(Path(), (), ()), (), lost, 1.0, trained)
    monkeypatch.setattr("hsf_finetune.experiment.learn.learn", lambda *given: result)
    with pytest.raises(SystemExit) as ended:
        main(["learn", "RUN", "CORRECTIONS", "-o", "OUT"])
    assert ended.value.code == code
    said = " ".join(capsys.readouterr().out.split())
    assert expected in said
    assert ("say little of other scans" in said) == bool(trained)
