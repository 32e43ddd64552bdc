"""Patterns: they give back the pairs they were made from, or there are none."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hsf_finetune.data.discovery.match_patterns import find_annotated_images, find_excluded_files
from hsf_finetune.data.volumes.read_volume import VolumeRef, stem
from hsf_finetune.describe.layouts.base_layout import FoundCase, ListedVolume
from hsf_finetune.describe.patterns import find_patterns

person = st.text("ab01", min_size=1, max_size=3)
people = st.lists(person, min_size=1, max_size=5, unique_by=str.lower)
words = st.lists(st.sampled_from(["im", "t2", "x", "01", "seg"]), max_size=2)
forms = st.sampled_from(
    [
        ("{i}/{p}{a}", "{l}/{p}{b}"),
        ("{p}{a}", "{p}{b}"),
        ("{p}/scan{a}", "{p}/label{b}"),
        ("{p}/{p}{a}", "{p}/{p}{b}"),
        ("{p}/s1/{p}{a}", "derived/{p}/s1/{p}{b}"),
        ("image_{p}{a}", "label_{p}{b}"),
        ("{p}/{p}{a}", "labels/{p}{b}"),
    ]
)


def item(root: Path, name: str) -> ListedVolume:
    path = root / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return ListedVolume(VolumeRef(path), path.relative_to(root).parts[:-1], stem(path))


@given(people, forms, words, words, people)
@settings(deadline=None, max_examples=150)
def test_discovery_by_the_patterns_gives_the_same_pairs(
    names: list[str], form: tuple[str, str], image: list[str], label: list[str], others: list[str]
) -> None:
    ends = ("".join(f"_{w}" for w in image), "".join(f"_{w}" for w in [*label, "dseg"]))

    def file(kind: int, name: str) -> str:
        return form[kind].format(p=name, a=ends[0], b=ends[1], i="images", l="masks")

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        cases = [FoundCase("t2", (item(root, file(0, n)),), item(root, file(1, n))) for n in names]
        for name in others:
            item(root, file(0, name))
        found = find_patterns(cases, root)
        if found is None:
            return
        pairs, problems = find_annotated_images(
            "lab", found, root, find_excluded_files(found, root)
        )
        assert not problems
        assert {(p.image, p.label.path) for p in pairs} == {
            (c.channels[0].ref.path, c.label.ref.path) for c in cases
        }


def test_the_usual_forms_have_readable_patterns(tmp_path: Path) -> None:
    def patterns(*pairs: tuple[str, str]) -> list[tuple[object, str | None]]:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        cases = [FoundCase("s", (item(folder, a),), item(folder, b)) for a, b in pairs]
        found = find_patterns(cases, folder)
        assert found is not None
        return [(pattern.mri, pattern.label) for pattern in found.patterns.values()]

    numbers = ("01", "02", "03")
    assert patterns(*((f"imagesTr/h_{n}_0000", f"labelsTr/h_{n}") for n in numbers)) == [
        ("imagesTr/h_*_0000.nii.gz", "labelsTr/h_*.nii.gz")
    ]
    assert patterns(*((f"c{n}/t2_crop", f"c{n}/t2_seg_crop") for n in numbers)) == [
        ("*/t2_crop.nii.gz", "t2_seg_crop.nii.gz")
    ]
    assert patterns(*((f"p{n}", f"p{n}_seg") for n in numbers)) == [
        ("*[0-9].nii.gz", "*[0-9]_seg.nii.gz")
    ]
    deep = ("sub-01/ses-1/anat/sub-01_ses-1", "sub-02/anat/sub-02", "sub-03/anat/sub-03")
    assert patterns(*((f"{d}_T2w", f"d/{d}_dseg") for d in (*deep, "sub-04/anat/sub-04"))) == [
        (
            "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz",
            "d/sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz",
        ),
        ("sub-*/anat/sub-*_T2w.nii.gz", "d/sub-*/anat/sub-*_dseg.nii.gz"),
    ]
