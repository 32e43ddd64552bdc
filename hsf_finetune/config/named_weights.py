"""Weights that go by a name: the files of `weights/`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hsf_finetune.config.conf_files import options_of, yaml_file
from hsf_finetune.config.settings import WEIGHTS_KEYS, NamedWeights, NetworkSettings, Settings
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.read_yaml import read_yaml
from hsf_finetune.system.urls import is_remote, parse_address


def with_description(settings: Settings, own: Path | None) -> Settings:
    """The same settings with the description of the weights that `pretrained` names.

    Args:
        settings: composed ones.
        own: the user's own folder, if any.

    Raises:
        ConfigError: there are no weights of that name, or their description is wrong.
    """
    given = settings.weights.pretrained
    options = options_of("weights", own)
    file = _description(given, own) if given in options else None
    is_word = given is not None and re.fullmatch(r"[\w-]+", given) is not None
    if file is None and given not in (None, "none", "demo") and is_word:
        names = [name for name in options if _description(name, own)]
        meant = _meant_name(str(given), names)
        if meant and not Path(str(given)).exists():
            raise ConfigError(
                f"there are no weights called '{given}', and nothing is at that path",
                expected=f"a path, a URL, hf://OWNER/REPO/FILE, or a name: {', '.join(names)}",
                fix=f"did you mean finetuning.pretrained={meant}?",
            )
    named = read_named(file) if file else None
    if settings.weights.named not in (None, named):
        raise ConfigError(
            "finetuning.named is filled in, and cannot be given",
            fix="put it into DIR/weights/NAME.yaml: --config-dir DIR finetuning.pretrained=NAME",
        )
    if named is None and given is not None and settings.weights.file is not None:
        raise ConfigError(
            "weights.file is the file of named weights, and no name is given",
            found=f"weights.pretrained={given}",
            fix="weights.pretrained=NAME, or weights.pretrained=PATH without weights.file",
        )
    weights = named.completed(settings.weights) if named else settings.weights
    return settings.model_copy(update={"weights": weights})


def with_chosen_weights(
    tree: Mapping[str, Any], chosen: str | None, own: Path | None, rank: Callable[[str], int]
) -> dict[str, Any]:
    """A configuration where `weights=NAME` means `weights.pretrained=NAME`.

    Args:
        tree: before validation; after `weights=NAME` its group `weights` is a description.
        chosen: the option chosen for the group.
        own: the user's own folder, if any.
        rank: how directly a setting was given: 2 by its own name, 1 by its group's.

    Raises:
        ValueError: other weights are given beside those of that name.
    """
    weights, file = tree.get("weights"), _description(str(chosen), own)
    if file is None or not isinstance(weights, Mapping):
        return {**tree, "weights": weights or {}}
    described = read_yaml(file)
    more = {k: v for k, v in weights.items() if k not in described or v != described[k]}
    for group, keys in (("weights", more), ("finetuning", tree["finetuning"])):
        path, given = f"{group}.pretrained", keys.get("pretrained")
        if rank("weights") and rank(path) == 2 and given != chosen:
            raise ValueError(f"{path}={given} contradicts weights={chosen}; give one of them")
    return {**tree, "weights": {"pretrained": chosen, **more}}


def read_named(path: Path) -> NamedWeights:
    """Reads the description of named weights.

    Raises:
        ConfigError: it cannot be read, lacks a key or has one too many, or its URL,
            checksum or classes are malformed.
    """
    try:
        content = read_yaml(path)
        named = NamedWeights.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("the named weights cannot be read", file=path, found=error) from error
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, detail['loc'])) or 'the file'}: {detail['msg']}"
            for detail in error.errors()
        ]
        known = ", ".join(NamedWeights.model_fields)
        raise ConfigError(
            "the description of named weights is wrong",
            file=path,
            found="\n".join(wrong),
            expected=f"the keys {known}",
        ) from error
    try:
        if named.checksum is not None:
            Checksum.parse(named.checksum)
        if named.url is None:
            return named
        if is_remote(named.url):
            parse_address(named.url)
            return named
    except ConfigError as error:
        raise ConfigError(
            "the description of named weights is wrong", file=path, found=str(error)
        ) from error
    raise ConfigError(
        "the url of named weights is none",
        file=path,
        found=named.url,
        expected="https://HOST/FILE or hf://OWNER/REPO/FILE",
    )


def named_weights(own: Path | None = None) -> dict[str, NamedWeights]:
    """Name -> description of all named weights, shipped and the user's own.

    Raises:
        ConfigError: a description is wrong.
    """
    files = {name: _description(name, own) for name in options_of("weights", own)}
    return {name: read_named(file) for name, file in files.items() if file}


def check_network(name: str, named: NamedWeights, models: NetworkSettings) -> None:
    """Refuses to load named weights into another network, before anything is fetched.

    Raises:
        ConfigError: the weights are for another network.
    """
    if models.name not in (named.models.name, "pretrained"):
        raise ConfigError(
            f"the weights '{name}' are for another network",
            found=f"models={models.name}",
            expected=f"models={named.models.name}",
            fix=f"models={named.models.name} finetuning.pretrained={name}",
        )


# -------------------------------------------------------------------- internals
def _description(name: str, own: Path | None) -> Path | None:
    """The file that describes weights of that name; None for settings, and where there is none."""
    file = yaml_file(f"weights/{name}", own)
    if file is None:
        return None
    try:
        content = read_yaml(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return file
    of_settings = {"defaults", *WEIGHTS_KEYS} - NamedWeights.model_fields.keys()
    return None if isinstance(content, dict) and content.keys() & of_settings else file


def _meant_name(given: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant by a word that is not one; None if none is similar."""
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given.lower(), lower, n=1)
    return lower[close[0]] if close else None
