"""Weights that go by a name: the files of `weights/`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from hsf_finetune.config.settings import NamedWeights, NetworkSettings
from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.urls import address_of, is_remote


def read_named(path: Path) -> NamedWeights:
    """Reads the description of named weights.

    Raises:
        ConfigError: it cannot be read, lacks a key or has one too many, or its URL,
            checksum or classes are malformed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        Checksum.parse(named.checksum)
        if is_remote(named.url):
            address_of(named.url)
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


def meant_name(given: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant by a word that is none; None where none is like it."""
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given.lower(), lower, n=1)
    return lower[close[0]] if close else None


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
