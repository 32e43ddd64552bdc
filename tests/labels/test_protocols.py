"""Label names become classes and sets: declared, with slashes, or by HSF's ca_type."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hsf_finetune.config.settings import DatasetsSettings, ModelSettings
from hsf_finetune.labels.classes import LabelMap
from hsf_finetune.labels.protocols import find_classes, read_label_map, refuse_sets, split_name
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF

FINE = ["DG", "CA1", "CA2", "CA3", "SUB"]


def datasets(**given: Any) -> DatasetsSettings:
    described = {
        name: {
            "path": name,
            "patterns": {"t2": {"mri": "*"}},
            **more,
            "labels_names": dict(enumerate(more["labels_names"], start=1)),
        }
        for name, more in given.items()
    }
    return DatasetsSettings.model_validate({"datasets": described})


def read(classes: list[str] | None = None, **given: Any) -> tuple[list[str], dict[str, LabelMap]]:
    """The foreground classes, and the label map of each dataset."""
    described = datasets(**given)
    space = find_classes(described, ModelSettings(labels_names=classes))
    maps = {name: read_label_map(name, one, space) for name, one in described.datasets.items()}
    return list(space.foreground), maps


def sets(protocol: LabelMap) -> list[str]:
    """The sets of a label map by value, each as its class names joined."""
    return ["+".join(c for c in protocol.space.names if c in names) for _, names in protocol.sets]


def lab(*names: str, **more: Any) -> dict[str, Any]:
    return {"labels_names": list(names), **more}


# ----------------------------------------------------------------- what is a class
def test_a_merged_name_alone_is_a_class_of_its_own() -> None:
    guide = yaml.safe_load((CONF / "datasets" / "hsf_guide.yaml").read_text())
    settings = DatasetsSettings.model_validate(guide)
    space = find_classes(settings, ModelSettings())
    assert space.foreground == ("DG", "CA2/3", "CA1", "PRESUB", "UNCUS", "PARASUB", "KYST")
    protocol = read_label_map("clark", settings.datasets["clark"], space)
    assert {len(names) for _, names in protocol.sets} == {1}
    refuse_sets({"clark": protocol})


def test_the_finest_names_of_all_datasets_are_the_classes() -> None:
    classes, maps = read(
        coarse=lab("DG", "CA1/2/3", "SUB"),
        middle=lab("DG", "CA1", "CA2/3"),
        fine=lab(*FINE, "KYST"),
    )
    assert classes == [*FINE, "KYST"]
    assert sets(maps["coarse"]) == ["background", "DG", "CA1+CA2+CA3", "SUB"]
    assert sets(maps["middle"]) == ["background", "DG", "CA1", "CA2+CA3"]
    assert set(map(len, maps["fine"].row_sets)) == {1}


def test_a_coarse_name_may_be_made_of_a_merged_class() -> None:
    classes, maps = read(one=lab("DG", "CA1", "CA2/3"), other=lab("CA1/2/3", "DG"))
    assert classes == ["DG", "CA1", "CA2/3"]
    assert sets(maps["other"]) == ["background", "CA1+CA2/3", "DG"]


def test_the_same_parts_in_another_spelling_are_the_same_class() -> None:
    classes, maps = read(one=lab("DG", "CA2/3"), other=lab("CA2/CA3", "DG", "CA1"))
    assert classes == ["CA2/3", "DG", "CA1"]
    assert sets(maps["one"]) == ["background", "DG", "CA2/3"]
    assert sets(maps["other"]) == ["background", "CA2/3", "DG", "CA1"]
    classes, maps = read(
        one=lab("DG", "CA2/CA3"), other=lab("CA23", ca_type="1/23"), fine=lab("CA3", "CA2")
    )
    assert classes == ["CA3", "CA2", "DG"]
    assert {sets(maps[name])[-1] for name in ("one", "other")} == {"CA3+CA2"}


def test_a_class_that_merged_labels_hold_may_be_unannotated_elsewhere() -> None:
    _, maps = read(fine=lab(*FINE), merged=lab("DG", "CA2/3", unannotated=["CA2"]))
    assert sets(maps["merged"]) == ["background+CA2", "DG", "CA2+CA3"]


def test_the_models_own_names_decide_if_given() -> None:
    classes, maps = read([*FINE, "TAIL"], lab=lab("CA2/3", "CA1", "TAIL", ca_type="1/23"))
    assert classes == [*FINE, "TAIL"]
    assert sets(maps["lab"]) == ["background", "CA2+CA3", "CA1", "TAIL"]
    assert maps["lab"].row_names == ("background", "CA2/3", "CA1", "TAIL")


def test_names_that_overlap_need_the_models_classes() -> None:
    with pytest.raises(ConfigError, match=r"models.labels_names=\[CA1, CA2, CA3\]"):
        read(one=lab("CA1/2", "CA3"), other=lab("CA1", "CA2/3"))
    _, maps = read(["CA1", "CA2", "CA3"], one=lab("CA1/2", "CA3"), other=lab("CA1", "CA2/3"))
    assert sets(maps["one"]) == ["background", "CA1+CA2", "CA3"]


# ------------------------------------------------------------------- what is a set
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("CA2/3", ("CA2", "CA3")),
        ("CA1/2/3", ("CA1", "CA2", "CA3")),
        ("L_CA2/3", ("L_CA2", "L_CA3")),
        ("CA2/3_left", ("CA2_left", "CA3_left")),
        ("CA9/10", ("CA9", "CA10")),
        ("DG/CA2/3", ("DG", "CA2", "CA3")),
        ("SUB/PRESUB", ("SUB", "PRESUB")),
        ("DG", ("DG",)),
        ("CA23", ("CA23",)),
    ],
)
def test_names_with_slashes_list_parts(name: str, parts: tuple[str, ...]) -> None:
    assert split_name(name) == parts


@given(st.text("aA1/_ ", min_size=1))
def test_any_name_can_be_read(name: str) -> None:
    assert split_name(name)


def test_sets_are_declared() -> None:
    own = {"HEAD": "foreground", "TAIL": ["CA1", "SUB", "DG"], "BODY": ["CA2/3", "TAIL"]}
    _, maps = read(fine=lab(*FINE), lab=lab("HEAD", "TAIL", "BODY", label_sets=own))
    assert sets(maps["lab"]) == [
        "background", "DG+CA1+CA2+CA3+SUB", "DG+CA1+SUB", "DG+CA1+CA2+CA3+SUB"
    ]  # fmt: skip
    assert maps["lab"].row_names == ("background", "HEAD", "TAIL")


def test_a_class_may_mean_more_in_one_dataset() -> None:
    wider = {"SUB": ["SUB", "PRESUB"]}
    classes, maps = read(coarse=lab("DG", "SUB", label_sets=wider), fine=lab("DG", "SUB", "PRESUB"))
    assert classes == ["DG", "SUB", "PRESUB"]
    assert sets(maps["coarse"]) == ["background", "DG", "SUB+PRESUB"]
    assert sets(maps["fine"]) == ["background", "DG", "SUB", "PRESUB"]


def test_unannotated_and_background_are_different_statements() -> None:
    more = {"labels": {1: 1, 7: 0}}
    _, maps = read(
        fine=lab(*FINE),
        undrawn=lab("DG", unannotated=["CA2/3"], **more),
        background=lab("DG", **more),
    )
    assert sets(maps["undrawn"]) == ["background+CA2+CA3", "DG", "background+CA2+CA3"]
    assert sets(maps["background"]) == ["background", "DG", "background"]
    assert maps["undrawn"].values_to_write()["background"] == 0


def test_ignored_values_say_nothing() -> None:
    _, maps = read(lab=lab("DG", "CA1", ignore=[99, 0], labels={5: 0, 1: 1, 2: 2}))
    protocol = maps["lab"]
    assert sets(protocol) == ["background+DG+CA1", "DG", "CA1", "background", "background+DG+CA1"]
    assert protocol.informative_rows.tolist() == [False, True, True, True]
    assert protocol.values_to_write() == {"background": 5, "DG": 1, "CA1": 2}


def test_hsfs_protocols_are_sets() -> None:
    classes, maps = read(
        hiplay=lab(*FINE, "TAIL", ca_type="1/2/3"),
        memodev=lab("DG", "CA1", "CA2/3", "SUB", "TAIL", ca_type="1/23"),
        cind=lab(*FINE, "HEAD", "TAIL", ca_type="1/2/3"),
        bernasconi=lab("DG", "CA", "SUB", ca_type=123),
    )
    assert classes == FINE
    tail, everything = "DG+CA1+SUB", "DG+CA1+CA2+CA3+SUB"
    assert sets(maps["hiplay"])[-1] == tail
    assert sets(maps["memodev"])[3:] == ["CA2+CA3", "SUB", tail]
    assert sets(maps["cind"])[-2:] == [everything, tail]
    assert sets(maps["bernasconi"]) == ["background", "DG", "CA1+CA2+CA3", "SUB"]


@pytest.mark.parametrize(
    ("ca_type", "name"), [("1/23", "CA23"), ("1/23", "CA2-3"), ("123", "CA1-3"), ("123", "CA123")]
)
def test_a_ca_type_reads_other_spellings(ca_type: str, name: str) -> None:
    _, maps = read(fine=lab(*FINE), other=lab(name, ca_type=ca_type))
    assert sets(maps["other"])[1] == ("CA2+CA3" if ca_type == "1/23" else "CA1+CA2+CA3")


def test_without_a_ca_type_head_and_tail_are_classes() -> None:
    assert read(lab=lab("HEAD", "TAIL"))[0] == ["HEAD", "TAIL"]


# ----------------------------------------------------------------------- mistakes
def test_sets_need_the_forgiving_loss() -> None:
    _, maps = read(fine=lab(*FINE), merged=lab("DG", "CA2/3", ignore=[9]))
    with pytest.raises(ConfigError, match=r"(?s)'merged': CA2/3 may be CA2, CA3.*ignore") as error:
        refuse_sets(maps)
    assert "fine" not in str(error.value)
    assert "models.use_forgiving_loss=True" in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": lab("DG", "CA", label_sets={"CA": ["CA4"]})}, "names 'CA4', which is neither"),
        ({"a": lab("CA", label_sets={"CA": ["CA4", "CA1"]})}, r"models.labels_names=\[CA4, CA1\]"),
        ({"a": lab("DG", unannotated=["CA9"])}, "names 'CA9', which is neither"),
        ({"a": lab("DG", label_sets={"HED": "foreground"})}, "'HED', which no label"),
        ({"a": lab("DG", ignore=[1])}, "both ignores"),
        (
            {"a": lab("DG", "CA1", unannotated=["CA1"])},
            "(?s)draws CA1 and .*list that under ignore",
        ),
        ({"a": lab(*FINE), "b": lab("CA2/3", unannotated=["CA2", "CA3"])}, "draws CA2/3 and lists"),
        (
            {"a": lab(*FINE), "b": lab("CA2", "DG", unannotated=["CA2/3"])},
            "'b' draws CA2 and lists it under unannotated",
        ),
        (
            {
                "a": lab("DG", "X", label_sets={"X": ["DG", "CA1"]}, unannotated=["X"]),
                "b": lab("CA1"),
            },
            "draws DG and lists it under unannotated",
        ),
        ({"a": lab("DG", "CA2", ca_type="1/23")}, "CA2 and CA3 are one label"),
        (
            {"a": lab("HIPPO", label_sets={"HIPPO": ["DG", "CA1"]}), "b": lab("HIPPO", "DG")},
            "a set in dataset 'a' and a class in 'b'",
        ),
        ({"a": lab("X", "Y", label_sets={"X": ["Y"], "Y": ["X"]}), "b": lab("DG")}, "neither"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(**given)


def test_settings_that_name_no_class_are_refused() -> None:
    described = datasets(a=lab("DG", "CA1"))
    with pytest.raises(ConfigError, match=r"models.class_weights names 'CA9'"):
        find_classes(described, ModelSettings(class_weights={"CA9": 2}))
    allowing = described.model_copy(update={"allow_unsupervised": ["KYST"]})
    with pytest.raises(ConfigError, match=r"datasets.allow_unsupervised names 'KYST'"):
        find_classes(allowing, ModelSettings())
    with pytest.raises(ValueError, match="1/2/3"):
        datasets(a=lab("DG", ca_type="12/3"))
