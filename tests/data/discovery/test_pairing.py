"""Globs and partners: which label belongs to which image."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from hsf_finetune.data.discovery import pairing
from hsf_finetune.data.discovery.pairing import ImageSeries, find_partner, glob_files
from hsf_finetune.system.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(root: Path, glob: str) -> list[str]:
    return [found.path.relative_to(root).as_posix() for found in glob_files(root, glob)]


def partners(root: Path, mri: str, label: str, excluded: tuple[str, ...] = ()) -> dict[str, str]:
    series = ImageSeries(root, glob_files(root, mri), {root / name for name in excluded})
    found = {i.path: find_partner(i, label, series, "label") for i in series.images}
    return {
        image.relative_to(root).as_posix(): path.relative_to(root).as_posix()
        for image, path in found.items()
    }


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("**/a.nii.gz", {"a.nii.gz", "p/a.nii.gz", "p/q/a.nii.gz"}),
        ("*/a.nii.gz", {"p/a.nii.gz"}),
        ("./p/*.nii.gz", {"p/a.nii.gz", "p/b1.nii.gz", "p/b2.nii.gz"}),
        ("p//*.nii.gz", {"p/a.nii.gz", "p/b1.nii.gz", "p/b2.nii.gz"}),
        ("p/b?.nii.gz", {"p/b1.nii.gz", "p/b2.nii.gz"}),
        ("p/b[!1].nii.gz", {"p/b2.nii.gz"}),
        ("p/**", {"p/a.nii.gz", "p/b1.nii.gz", "p/b2.nii.gz", "p/q/a.nii.gz"}),
        ("*.nii", set()),
    ],
)
def test_globs_match_files_at_any_depth_they_say(root: Path, glob: str, expected: set[str]) -> None:
    touch(root, "a.nii.gz", "p/a.nii.gz", "p/b1.nii.gz", "p/b2.nii.gz", "p/q/a.nii.gz")
    (root / "folder.nii").mkdir()
    assert names(root, glob) == sorted(expected, key=lambda name: root / name)


def test_the_texts_of_the_wildcards_rebuild_the_path(root: Path) -> None:
    touch(root, "x/y/sub-1_T2w.nii.gz")
    (found,) = glob_files(root, "**/sub-*_T?w.nii.gz")
    assert found.texts == ("x/y/", "1", "2")


def test_hidden_files_are_not_matched(root: Path) -> None:
    touch(root, "imagesTr/a.nii.gz", "imagesTr/._a.nii.gz", ".trash/b.nii.gz")
    assert names(root, "**/*.nii.gz") == ["imagesTr/a.nii.gz"]


@pytest.mark.parametrize("glob", ["/absolute/*.nii.gz", "a**/b.nii.gz/**c", ""])
def test_what_is_no_glob_is_one_clear_error(root: Path, glob: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        glob_files(root, glob)


LAYOUTS = {
    "decathlon": (
        "imagesTr/*.nii.gz",
        "labelsTr/*.nii.gz",
        {"imagesTr/a.nii.gz": "labelsTr/a.nii.gz", "imagesTr/b.nii.gz": "labelsTr/b.nii.gz"},
    ),
    "nnunet": (
        "imagesTr/*_0000.nii.gz",
        "labelsTr/*.nii.gz",
        {"imagesTr/a_0000.nii.gz": "labelsTr/a.nii.gz"},
    ),
    "hdf5": (
        "vol*_im.h5",
        "vol*_seg.h5",
        {"vol1_im.h5": "vol1_seg.h5", "vol2_im.h5": "vol2_seg.h5"},
    ),
    "beside": (
        "**/*_T2w.nii.gz",
        "*_dseg.nii.gz",
        {"s1/x_T2w.nii.gz": "s1/x_dseg.nii.gz", "s1/y_T2w.nii.gz": "s1/y_dseg.nii.gz"},
    ),
    "fixed name": ("**/t2.nii.gz", "seg.nii.gz", {"a/t2.nii.gz": "a/seg.nii.gz"}),
    "other folder": (
        "sub-*/anat/*_T2w.nii.gz",
        "derivatives/sub-*/anat/*_dseg.nii.gz",
        {"sub-1/anat/x_T2w.nii.gz": "derivatives/sub-1/anat/x_dseg.nii.gz"},
    ),
    "folder beside": ("*/img/*.nii", "../seg/*.nii", {"a/img/x.nii": "a/seg/x.nii"}),
    "dot": ("**/t2.nii.gz", "./seg.nii.gz", {"a/t2.nii.gz": "a/seg.nii.gz"}),
    "alone in its folder": (
        "**/*_T2w.nii.gz",
        "*manual*.nii.gz",
        {"a/x_T2w.nii.gz": "a/labels_manual_2.nii.gz"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_pair_with_their_images(root: Path, layout: str) -> None:
    mri, label, expected = LAYOUTS[layout]
    touch(root, *expected, *expected.values())
    assert partners(root, mri, label) == expected


def test_a_missing_label_is_never_replaced_by_another_ones(root: Path) -> None:
    touch(root, "a/t2.nii.gz", "b/seg.nii.gz")
    with pytest.raises(DataError, match="has no label") as caught:
        partners(root, "*/t2.nii.gz", "*/seg.nii.gz")
    assert "a/seg.nii.gz" in str(caught.value)
    assert "t2.nii.gz" in str(caught.value)


def test_two_candidates_are_listed(root: Path) -> None:
    touch(root, "a/x_T2w.nii.gz", "a/old_seg.nii.gz", "a/new_seg.nii.gz")
    with pytest.raises(DataError, match="more than one label") as caught:
        partners(root, "**/*_T2w.nii.gz", "*seg.nii.gz")
    assert "new_seg.nii.gz, old_seg.nii.gz" in str(caught.value)


def test_an_excluded_candidate_does_not_count(root: Path) -> None:
    touch(root, "a/x_T2w.nii.gz", "a/old_seg.nii.gz", "a/new_seg.nii.gz")
    found = partners(root, "**/*_T2w.nii.gz", "*seg.nii.gz", excluded=("a/old_seg.nii.gz",))
    assert found == {"a/x_T2w.nii.gz": "a/new_seg.nii.gz"}


def test_a_loose_pattern_for_several_images_in_a_folder_says_so(root: Path) -> None:
    touch(root, "x_T2w.nii.gz", "y_T2w.nii.gz", "x_seg_v1.nii.gz", "y_seg_v1.nii.gz")
    with pytest.raises(DataError, match="does not tell which label") as caught:
        partners(root, "*_T2w.nii.gz", "*seg*.nii.gz")
    assert "wildcards" in str(caught.value)


def test_long_listings_are_cut(root: Path) -> None:
    touch(root, "imagesTr/a.nii.gz", *[f"labelsTr/b{n:02}.nii.gz" for n in range(20)])
    with pytest.raises(DataError, match=r"\(20 entries\)"):
        partners(root, "imagesTr/*.nii.gz", "labelsTr/*.nii.gz")


@pytest.mark.parametrize("label", ["sub-*/seg*.nii.gz", "sub-*/typo*.nii.gz"], ids=["all", "none"])
def test_the_files_are_looked_up_once_for_all_images(
    root: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    for number in range(20):
        touch(root, f"sub-{number}/t2.nii.gz", f"sub-{number}/seg{number}.nii.gz")
    series = ImageSeries(root, glob_files(root, "**/t2.nii.gz"))
    looked_up: list[str] = []

    def count(folder: Path, glob: str) -> list[pairing.GlobMatch]:
        looked_up.append(glob)
        return glob_files(folder, glob)

    monkeypatch.setattr(pairing, "glob_files", count)
    found = 0
    for image in series.images:
        with suppress(DataError):
            find_partner(image, label, series, "label")
            found += 1
    assert found == (20 if "seg" in label else 0)
    assert len(looked_up) == 1


def test_folders_behind_links_are_entered(root: Path) -> None:
    touch(root.parent / f"{root.name}_archive", "t2.nii.gz", "dseg.nii.gz")
    for number in (1, 2):
        (root / f"sub-{number}").mkdir()
        (root / f"sub-{number}" / "anat").symlink_to(root.parent / f"{root.name}_archive")
    wanted = [f"sub-{number}/anat/t2.nii.gz" for number in (1, 2)]
    for glob in ("**/t2.nii.gz", "sub-*/**/t2.nii.gz", "sub-*/anat/t2.nii.gz"):
        assert names(root, glob) == wanted
    assert partners(root, "**/t2.nii.gz", "dseg.nii.gz").keys() == {*wanted}
