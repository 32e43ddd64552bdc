"""The user's cache: what it lists and what it removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hsf_finetune.cli.main import main
from hsf_finetune.system.cache import KINDS, list_entries, sweep

DAY_S = 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one file of each kind that was used today and one of 100 days ago."""
    monkeypatch.setenv("HSF_FINETUNE_CACHE", str(tmp_path))
    for kind in KINDS:
        for name, days in (("new", 0), ("old", 100)):
            path = tmp_path / kind.folder / name / "file"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"12345")
            os.utime(path, (time.time() - days * DAY_S,) * 2)
    return tmp_path


def command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["cache", *arguments])
    assert stop.value.code == 0


def names(cache: Path) -> dict[str, list[str]]:
    return {
        kind.folder: [p.parent.name for p in sorted((cache / kind.folder).rglob("file"))]
        for kind in KINDS
    }


def test_everything_is_listed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command()
    printed = capsys.readouterr().out
    assert all(kind.folder in printed for kind in KINDS)
    assert "0 to 100" in printed
    assert [len(list_entries(kind)) for kind in KINDS] == [2] * len(KINDS)
    command("--prune", "50", "--only", *(kind.folder for kind in KINDS))
    assert "0 to 0" not in capsys.readouterr().out


def test_sweep_removes_what_can_be_made_again_once_a_day(cache: Path) -> None:
    sweep()
    expected = {k.folder: ["new"] if k.is_remade else ["new", "old"] for k in KINDS}
    assert names(cache) == expected
    late = cache / "samples" / "old" / "file"
    late.parent.mkdir(exist_ok=True)
    late.write_bytes(b"")
    os.utime(late, (0, 0))
    sweep()
    assert late.exists()


def test_downloaded_weights_are_removed_only_by_name(cache: Path) -> None:
    command("--prune", "0")
    left = {kind for kind, found in names(cache).items() if found}
    assert left == {"weights", "accepted_licences"}
    command("--prune", "50", "--only", "weights")
    assert names(cache)["weights"] == ["new"]


def test_links_are_not_followed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_bytes(b"12345")
    (cache / "demo" / "link").symlink_to(outside.parent)
    command("--prune", "0")
    assert outside.exists()
