"""Settings about weights: a group of their own, with every spelling that has ever been valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import WEIGHTS_KEYS, Settings, WeightsSettings, dotted
from hsf_finetune.system.errors import ConfigError

GIVEN = {
    "checkpoint": "last",
    "key_prefix": "model.",
    "trust": "[a.b]",
    "checksum": "md5:0",
    "offline": "true",
    "source_classes": "[background,A]",
    "source_fold": "all",
    "source_orientation": "LPS",
    "use_ema": "false",
    "derive_from": "{a: A}",
    "head": "copy",
    "input_channels": "mean",
    "source_channels": "[T1w]",
    "match": "order",
    "key_map": "{a.: b.}",
    "load": "trunk",
    "min_loaded": "0.5",
    "allow_mismatch": "[head.*]",
    "file": "/a.pt",
    "accept_licence": "true",
    "pretrained": "demo",
    "external_weights_path": "/a.pt",
    "external_weights_key_prefix": "net.",
}
OTHER = ("finetuning.external_weights_path=", "finetuning.external_weights_key_prefix=")


def weights(*overrides: str, config: str = "finetune", own: Path | None = None) -> WeightsSettings:
    return compose(config, overrides, own).weights


def mistake(*overrides: str, own: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose("finetune", overrides, own)
    return str(caught.value)


def own_file(folder: Path, name: str, content: dict[str, Any]) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def test_every_key_is_tried() -> None:
    assert {*GIVEN, "named"} == {*WEIGHTS_KEYS}


@pytest.mark.parametrize(("number", "key"), enumerate(GIVEN))
def test_both_groups_mean_the_same(number: int, key: str) -> None:
    ours = weights(f"weights.{key}={GIVEN[key]}")
    assert ours != WeightsSettings()
    for plus in ("", "+" * (1 + number % 2)):
        assert weights(f"{plus}finetuning.{key}={GIVEN[key]}") == ours


def test_in_a_file_of_ones_own(tmp_path: Path) -> None:
    own = own_file(
        tmp_path,
        "finetuning/mine.yaml",
        {"defaults": ["default"], "pretrained": "demo", "input_channels": {"FLAIR": "T1w"}},
    )
    found = weights("finetuning=mine", own=own)
    assert (found.pretrained, found.input_channels) == ("demo", {"FLAIR": "T1w"})
    found = weights("finetuning=mine", "weights.pretrained=none", own=own)
    assert found.pretrained == "none", "the command line counts more than a file"
    for group in ("finetuning", "weights"):
        found = weights("finetuning=mine", f"{group}.input_channels.T2w=zero", own=own)
        assert found.input_channels == {"FLAIR": "T1w", "T2w": "zero"}


def test_weights_of_ones_own_as_a_group(tmp_path: Path) -> None:
    own = own_file(
        tmp_path,
        "weights/mine.yaml",
        {"defaults": ["default"], "pretrained": "demo", "head": "copy"},
    )
    found = weights("weights=mine", "finetuning.head=fresh", own=own)
    assert (found.pretrained, found.head) == ("demo", "fresh")
    assert weights("weights=mine", config="train", own=own).pretrained == "demo"
    text = mistake("weights=mine", "finetuning=from_scratch", own=own)
    assert "finetuning.pretrained=none contradicts weights.pretrained=demo" in text
    own = own_file(tmp_path, "weights/bare.yaml", {"pretrained": "demo"})
    assert weights("weights=bare", "weights.head=copy", own=own).head == "copy"


@pytest.mark.parametrize("group", ["finetuning", "weights"])
def test_in_an_experiment(group: str, tmp_path: Path) -> None:
    own = own_file(
        tmp_path, "experiment/mine.yaml", {group: {"pretrained": "demo", "head": "copy"}}
    )
    file = own / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\n" + file.read_text())
    assert weights("experiment=mine", "finetuning.head=fresh", own=own) == WeightsSettings(
        pretrained="demo", head="fresh"
    )


def test_named_weights_in_an_experiment(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults:\n  - override /weights: hsf\n")
    named = weights("experiment=mine", own=tmp_path)
    assert named == weights("finetuning.pretrained=hsf")
    assert weights("experiment=mine", "finetuning.pretrained=demo", own=tmp_path).named is None


def test_training_from_scratch_can_be_told_otherwise() -> None:
    assert weights(config="train").pretrained == "none"
    for given in ("finetuning.pretrained=demo", "weights.pretrained=demo"):
        assert weights(given, config="train").pretrained == "demo"
    assert weights("weights=hsf", config="train").pretrained == "hsf"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("finetuning.pretrained=a", "weights.pretrained=b"),
            "finetuning.pretrained=a contradicts weights.pretrained=b",
        ),
        (
            ("finetuning.pretrained=demo", "weights=hsf"),
            "finetuning.pretrained=demo contradicts weights=hsf",
        ),
        (
            ("weights.pretrained=demo", "weights=hsf"),
            "weights.pretrained=demo contradicts weights=hsf",
        ),
        (("finetuning.head=cpy",), "finetuning.head: should be"),
        (("weights.head=cpy",), "weights.head: should be"),
        (("finetuning.external_weights_paths=a",), "no setting"),
        (("finetuning.key_prefix=''",), "key_prefix"),
        (("finetuning.pretraind=a",), "did you mean 'finetuning.pretrained'?"),
    ],
)
def test_what_is_refused(given: tuple[str, ...], said: str) -> None:
    assert said in mistake(*given)


def test_a_file_may_refer_to_either_spelling() -> None:
    for group in ("finetuning", "weights"):
        for given in ("finetuning.pretrained=hsf", "weights.pretrained=hsf", "weights=hsf"):
            assert compose("finetune", [given, f"name='x_${{{group}.pretrained}}'"]).name == "x_hsf"
    assert compose("train", ["name='x_${weights.pretrained}'"]).name == "x_none"


def test_the_names_of_pytorch_connectomics(tmp_path: Path) -> None:
    given = [f"{OTHER[0]}{tmp_path / 'a.pt'}", f"{OTHER[1]}model."]
    for spelt in (
        given,
        [f"++{one}" for one in given],
        [g.replace("finetuning", "weights") for g in given],
    ):
        found = weights(*spelt)
        assert (found.pretrained, found.key_prefix) == (str(tmp_path / "a.pt"), "model.")
        assert "external" not in str(found.model_dump())
    both = WeightsSettings.model_validate({"external_weights_path": "a", "pretrained": "a"})
    assert both.pretrained == "a"
    assert WeightsSettings.model_validate({"external_weights_path": None}).pretrained is None
    with pytest.raises(ValidationError, match="external_weights_path=a contradicts pretrained=b"):
        WeightsSettings.model_validate({"external_weights_path": "a", "pretrained": "b"})
    assert "contradicts key_prefix=b" in mistake(f"{OTHER[1]}a", "finetuning.key_prefix=b")


def test_settings_of_version_0_1_0_are_read() -> None:
    now = compose("finetune", ["weights=hsf", "finetuning.derive_from={a: [b, c]}"])
    stored = now.to_dict()
    old = {**stored, "finetuning": {**stored["finetuning"], **stored["weights"]}}
    del old["weights"]
    assert Settings.model_validate(old) == now
    assert dotted(Settings.model_validate(old).to_dict()) == dotted(now.to_dict())
    both = {**stored, "finetuning": {**stored["finetuning"], "pretrained": "demo"}}
    with pytest.raises(ValidationError, match=r"finetuning.pretrained=demo contradicts weights"):
        Settings.model_validate(both)


def test_the_older_setting_of_trust_is_accepted() -> None:
    trust = weights("finetuning.trust=[numpy._core.multiarray.scalar,numpy.dtype]").trust
    assert trust == ["numpy._core.multiarray.scalar", "numpy.dtype"]
