"""Folders behind links are entered, loops end, and globs mean what pathlib says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from hsf_finetune.system.walk_folder import glob_below, paths_below

FILES = ("a.nii.gz", "p/a.nii.gz", "p/q/a.nii.gz", "p/q/r/b.nii.gz", ".git/annex/a.nii.gz")
PATTERNS = [
    "*",
    "*.nii.gz",
    "**/*",
    "**/a.nii.gz",
    "p/**/*.nii.gz",
    "*/q/*.nii.gz",
    "**/q/**/*.nii.gz",
    "**/**/b.nii.gz",
    "p/../**/r/b.nii.gz",
    "nowhere/**/a.nii.gz",
    "a.nii.gz/**/*",
]


def touch(top: Path, *names: str) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()


def below(top: Path, paths: Iterable[Path]) -> list[str]:
    return [path.relative_to(top).as_posix() for path in paths if path.is_file()]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_without_links_pathlib_finds_the_same(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, *FILES)
    assert glob_below(tmp_path, pattern) == {*map(str, tmp_path.glob(pattern))}
    assert [*paths_below(tmp_path)] == sorted(tmp_path.rglob("*"))
    assert [*paths_below(tmp_path / "a.nii.gz"), *paths_below(tmp_path / "nowhere")] == []


def test_folders_behind_links_are_entered(tmp_path: Path) -> None:
    touch(tmp_path / "archive", "s1/anat/t2.nii.gz", "s2/anat/t2.nii.gz")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "sub-1").symlink_to(tmp_path / "archive" / "s1")
    (cohort / "sub-2").symlink_to(Path("..", "archive", "s2"))
    (cohort / "sub-3").symlink_to(tmp_path / "archive" / "s1")
    (cohort / "gone").symlink_to(tmp_path / "nowhere")
    wanted = [f"sub-{number}/anat/t2.nii.gz" for number in (1, 2, 3)]
    assert below(cohort, paths_below(cohort)) == wanted
    assert cohort / "gone" in paths_below(cohort)
    for pattern in ("**/t2.nii.gz", "*/**/*.nii.gz", "sub-*/anat/t2.nii.gz"):
        assert below(cohort, sorted(map(Path, glob_below(cohort, pattern)))) == wanted


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    archive, cohort = tmp_path / "archive", tmp_path / "cohort"
    touch(archive, *(f"s{number}/t2.nii.gz" for number in range(9)))
    cohort.mkdir()
    for number in range(9):
        (cohort / f"sub-{number}").symlink_to(archive / f"s{number}")
        (archive / f"s{number}" / "up").symlink_to("..")
        (archive / f"s{number}" / "all").symlink_to(cohort)
        (archive / f"s{number}" / "itself").symlink_to("itself")
    (cohort / "here").symlink_to(".")
    wanted = [f"sub-{number}/t2.nii.gz" for number in range(9)]
    assert below(cohort, paths_below(cohort)) == wanted
    assert below(cohort, sorted(map(Path, glob_below(cohort, "**/t2.nii.gz")))) == wanted
    # Named in the pattern, such a link is followed, and the loop behind it ends.
    named = below(cohort, sorted(map(Path, glob_below(cohort, "sub-0/all/**/t2.nii.gz"))))
    assert named == [f"sub-0/all/sub-{number}/t2.nii.gz" for number in range(1, 9)]


def test_a_folder_that_has_another_path_below_is_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, "run1/t2.nii.gz", "run2/t2.nii.gz", ".store/s3/t2.nii.gz")
    (tmp_path / "latest").symlink_to("run2")
    (tmp_path / "run3").symlink_to(Path(".store", "s3"))
    wanted = ["run1/t2.nii.gz", "run2/t2.nii.gz", "run3/t2.nii.gz"]
    shown = [path for path in paths_below(tmp_path) if ".store" not in path.parts]
    assert below(tmp_path, shown) == wanted
    found = sorted(map(Path, glob_below(tmp_path, "**/t2.nii.gz")))
    assert below(tmp_path, [path for path in found if ".store" not in path.parts]) == wanted
