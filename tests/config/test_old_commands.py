"""Command lines and YAML files of version 0.1.0 mean the same, or are told what to write.

`version_0_1_0/command_lines.json` has every command line of that version's README, docs and conf,
and those of the projects that its users come from, with the settings that they gave: the
defaults, and for each line what differs from them. `version_0_1_0/conf` is that version's.
"""

from __future__ import annotations

import functools
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import WEIGHTS_KEYS, Settings, dotted
from hsf_finetune.system.errors import ConfigError
from tests.conftest import CONF

STORED = Path(__file__).parent / "version_0_1_0"
OLD = json.loads((STORED / "command_lines.json").read_text())
DEFAULTS = OLD.pop("defaults")
FILES = sorted(
    path.relative_to(STORED / "conf").with_suffix("").as_posix()
    for path in (STORED / "conf").glob("*/*.yaml")
    if path.parent.name not in ("experiment", "weights") and path.stem != "base"
)
STRICTER = "min_loaded"
"""The default has become 1: every tensor of the trunk."""
FOREIGN = [
    # PyTorch Connectomics
    ("model.external_weights_path=PATH", "finetuning.external_weights_path"),
    ("optimization.optimizer.lr=0.0001", "models.lr"),
    ("optimization.max_epochs=500", "lightning.max_epochs"),
    ("data.batch_size=2", "datasets.batch_size"),
    # DETR
    ("train.freeze_backbone=true", "finetuning.freeze_backbone"),
    ("train.unfreeze_backbone_at_epoch=5", "finetuning.unfreeze_backbone_at_epoch"),
    ("train.learning_rate=1e-4", "models.lr"),
    ("train.epochs=10", "lightning.max_epochs"),
    ("train.num_workers=4", "datasets.num_workers"),
    # foundation models
    ("llrd_decay=0.85", "finetuning.llrd_decay"),
    ("gradual_patience=5", "finetuning.gradual_patience"),
    ("linear_probe_epochs=15", "finetuning.linear_probe_epochs"),
    # HSF
    ("mode=decoder", "finetuning.mode"),
    ("unfreeze_frequency=4", "finetuning.unfreeze_frequency"),
    ("out_channels=6", "finetuning.out_channels"),
]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of the command lines, with the dataset YAML of HSF's guide."""
    root = tmp_path_factory.mktemp("commands")
    (root / "my_conf" / "datasets").mkdir(parents=True)
    guide = CONF / "datasets" / "hsf_guide.yaml"
    shutil.copy(guide, root / "my_conf" / "datasets" / "mine.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


@functools.cache
def shipped(choice: str) -> Settings:
    """The settings with this option."""
    return compose("finetune", [choice])


def with_strict_loading(settings: Settings) -> Settings:
    """The settings with the default that has changed."""
    weights = settings.weights.model_copy(update={STRICTER: 1.0})
    return settings.model_copy(update={"weights": weights})


def as_before(settings: Settings, folder: Path) -> dict[str, Any]:
    """Dotted settings, with the keys about weights in the group that had them."""
    flat = dotted(json.loads(json.dumps(settings.to_dict())))
    moved = {
        f"finetuning.{key.removeprefix('weights.')}" if key.startswith("weights.") else key: value
        for key, value in flat.items()
    }
    return {
        key: value.replace(str(folder), "CWD") if isinstance(value, str) else value
        for key, value in moved.items()
    }


@pytest.mark.parametrize("line", OLD)
def test_a_command_line_gives_the_same_settings(line: str, folder: Path) -> None:
    _, script, *given = shlex.split(line)
    own = given[given.index("--config-dir") + 1] if "--config-dir" in given else None
    overrides = given[2:] if own else given
    found = as_before(compose(script.removesuffix(".py"), overrides, own), folder)
    for key, before in {**DEFAULTS, **OLD[line]}.items():
        before = "hsf" if before == "gradual_unfreezing" else before
        if key == f"finetuning.{STRICTER}":
            continue
        absent = key not in found and key not in OLD[line]
        assert absent or found[key] == before, key


@pytest.mark.parametrize("file", FILES)
def test_every_key_of_a_file_can_be_given_with_its_value(file: str) -> None:
    """On the command line, in either of its forms."""
    group, option = file.split("/")
    content = yaml.safe_load((STORED / "conf" / f"{file}.yaml").read_text())
    content = {key: value for key, value in content.items() if key not in ("defaults", STRICTER)}
    keys = enumerate(dotted({group: content}).items())
    given = [f"{'++' * (n % 2)}{key}={written(value)}" for n, (key, value) in keys]
    assert compose("finetune", [f"{group}={option}", *given]) == shipped(f"{group}={option}")


def written(value: object) -> str:
    """A value as the command line has it: JSON, with texts in single quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("file", FILES)
def test_a_copy_of_the_whole_folder_still_works(file: str) -> None:
    """Users copy conf/ and change it: its files come first, and know no group `weights`."""
    choice = file.replace("/", "=")
    given = [choice, "finetuning.pretrained=demo", "weights.head=copy"]
    copied = with_strict_loading(compose("finetune", given, STORED / "conf"))
    weights = shipped(choice).weights.model_copy(update={"pretrained": "demo", "head": "copy"})
    assert copied == shipped(choice).model_copy(update={"weights": weights})


@pytest.mark.parametrize("config", ["finetune", "train"])
def test_the_keys_about_weights_are_all_still_there(config: str) -> None:
    old = yaml.safe_load((STORED / "conf" / "finetuning" / "default.yaml").read_text())
    new = {"external_weights_path", "external_weights_key_prefix", "load", "allow_mismatch"}
    new |= {"file", "accept_licence"}
    assert old.keys() >= {*WEIGHTS_KEYS} - new
    assert with_strict_loading(compose(config, [], STORED / "conf")) == compose(config)


@pytest.mark.parametrize(("override", "meant"), FOREIGN)
def test_keys_of_other_programs_are_answered_with_ours(override: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("finetune", [override])
    assert f"did you mean '{meant}'?" in str(caught.value)
