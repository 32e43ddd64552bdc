"""From YAML files and command line to settings, composed by Hydra.

Of the whole package, only this module, `foreign_settings`, and `hydra_launcher` and `optuna_search` of
the command line use Hydra.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from hsf_finetune.config.absolute_paths import with_absolute_paths
from hsf_finetune.config.conf_files import (
    conf_folder,
    groups,
    options_of,
    own_folder,
    yaml_file,
)
from hsf_finetune.config.foreign_settings import harmless_environment, searching
from hsf_finetune.config.messages import unknown_option, unknown_setting, validation_error
from hsf_finetune.config.named_weights import with_chosen_weights, with_description
from hsf_finetune.config.run_settings import read_settings_of
from hsf_finetune.config.schema import known_paths, may_be_added
from hsf_finetune.config.settings import WEIGHTS_KEYS, Settings, move_to_weights
from hsf_finetune.system.errors import ConfigError

_FORCED = re.compile(
    rf"^\+{{0,2}}((?:finetuning|weights)\.(?:{'|'.join(WEIGHTS_KEYS)})[.=]|[\w./-]+=\{{)"
)
"""Overrides of keys that the files may lack: about weights, and mappings with keys of their own."""
_MOVED = re.compile(rf"^~finetuning\.(?=(?:{'|'.join(WEIGHTS_KEYS)})\b)")
_INTENSITY = "preprocessing.intensity"
_RESUMED = "_resumed_run"
"""Name of a run's settings in Hydra's store."""
_NAMES_OF_PRETRAINED = (".pretrained", ".external_weights_path")
_UNREADABLE = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


def compose(
    config: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Settings:
    """The settings that a command line would give, without running anything.

    With `resume=RUN` they are those of that run, but for what is given beside it.

    Args:
        config: `finetune` or `train`.
        overrides: as on the command line (`models.lr=1e-3`).
        config_dir: a folder with the user's own groups, such as `datasets/mine.yaml`.

    Raises:
        ConfigError: an unknown group, option or key, or a wrong value.
    """
    return read_settings(composed(config, overrides, own_folder(config_dir)))


@dataclass(frozen=True)
class Composition:
    """A configuration as Hydra composed it, before it is validated.

    Args:
        tree: what Hydra made of YAML files and command line.
        config: `finetune` or `train`.
        overrides: those of the command line, as Hydra was given them.
        choices: the option chosen for each group.
        own: the user's own folder, whose files come before the shipped ones.
        run: config.yaml of the run to resume, if its settings are the base.
    """

    tree: DictConfig
    config: str
    overrides: Sequence[str]
    choices: Mapping[str, str]
    own: Path | None
    run: Path | None = None

    def origin(self, path: str) -> Path | None:
        """The file that a setting stems from; None is the command line."""
        keys = {_key(override) for override in self.overrides} - self.choices.keys()
        if any(f"{path}.".startswith(f"{k}.") or k.startswith(f"{path}.") for k in keys):
            return None
        group = path.partition(".")[0]
        if group not in self.choices:
            return self.run or yaml_file(self.config, self.own)
        return yaml_file(f"{group}/{self.choices[group]}", self.own)

    def rank(self, path: str) -> int:
        """How directly a setting was given: 2 by its own name, 1 by its group's, 0 otherwise."""
        keys = [_key(override) for override in self.overrides]
        if any(f"{key}.".startswith(f"{path}.") for key in keys):
            return 2
        return int(path.partition(".")[0] in keys)


def composed(config: str, overrides: Sequence[str], own: Path | None) -> Composition:
    """The configuration as it is before validation.

    Args:
        config: `finetune` or `train`.
        overrides: as on the command line.
        own: the user's own folder. It is searched first, so that a file there is never
            shadowed by a shipped one of the same name.

    Raises:
        ConfigError: an unknown group, option or key, or a file that is no YAML.
    """
    given = [_FORCED.sub(r"++\1", override) for override in _with_whole_values(overrides)]
    given = [_MOVED.sub("~weights.", override) for override in given]
    folder = _run_to_resume(given)
    if folder is None or any(_key(o) == "experiment" or "@" in _key(o) for o in given):
        return _compose(config, given, own)
    return _compose_on_run(config, given, own, folder)


def read_settings(composition: Composition) -> Settings:
    """Validates a composed configuration, and makes its paths absolute.

    Raises:
        ConfigError: every wrong key and value at once, each with its path.
    """
    try:
        with harmless_environment():
            plain, moved = _with_weights_apart(composition)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError("the configuration cannot be resolved", found=str(error)) from error
    try:
        settings = Settings.model_validate(plain)
    except ValidationError as error:
        raise validation_error(error, plain, composition.origin, moved) from error
    if composition.run is None or settings.weights.named is None:
        settings = with_description(settings, composition.own)
    return with_absolute_paths(settings)


# ------------------------------------------------------------------- composing
def _compose(config: str, overrides: Sequence[str], own: Path | None) -> Composition:
    """What Hydra composes; keys that exist but stand in no YAML get the `++` it asks for."""
    GlobalHydra.instance().clear()
    try:
        with (
            searching(own),
            hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())),
        ):
            tree = hydra.compose(config, overrides=[*overrides], return_hydra_config=True)
    except _UNREADABLE as error:
        refused = re.search(
            r"Could not override '([^']+)'|Error merging override (\S+)=", str(error)
        )
        if refused is None or not overrides:
            raise _composition_error(error, overrides, own) from error
        chosen = [o for o in overrides if _key(o) in groups(own)]
        if chosen == [*overrides]:
            chosen = []
        plain = OmegaConf.to_container(_compose(config, chosen, own).tree)
        forced = [_added(override, plain) for override in overrides]
        if forced == [*overrides]:
            key = refused.group(1) or refused.group(2)
            if key in known_paths(plain):
                raise _composition_error(error, overrides, own) from error
            raise unknown_setting(key, plain) from error
        return _compose(config, forced, own)
    choices = {group: str(option) for group, option in tree.hydra.runtime.choices.items()}
    OmegaConf.set_struct(tree, False)
    del tree["hydra"]
    return Composition(tree, config, overrides, choices, own)


def _with_whole_values(overrides: Sequence[str]) -> list[str]:
    """Overrides where a mapping of intensities replaces the one of the files, of another kind."""
    empty = f"{_INTENSITY}=null"
    return [part for one in overrides for part in ([empty] * (_key(one) == _INTENSITY) + [one])]


def _added(override: str, tree: object) -> str:
    """An override with the `++` that Hydra asks for where the files lack a setting."""
    key = _key(override)
    is_new = "." in key and may_be_added(key.split("."), tree)
    return f"++{override}" if is_new and override[0] not in "+~" else override


def _run_to_resume(overrides: Sequence[str]) -> Path | None:
    """The folder of the run of `resume=RUN`; None without one, and for `auto` or no run."""
    for override in reversed(overrides):
        if _key(override) == "resume":
            try:
                value = OverridesParser.create().parse_override(override).value()
            except HydraException:
                return None
            path = Path(str(value)).expanduser()
            folder = path.parent.parent if path.suffix == ".ckpt" else path
            known = value not in (None, "auto") and (folder / "config.yaml").exists()
            return folder.absolute() if known else None
    return None


def _compose_on_run(
    config: str, overrides: Sequence[str], own: Path | None, folder: Path
) -> Composition:
    """The settings of a run with those of the command line on top; groups given are composed."""
    chosen = {_key(override) for override in overrides} & {*groups(own)}
    rest = [o for o in overrides if _key(o).partition(".")[0] not in chosen]
    settings = read_settings_of(folder).to_dict() | {"resume": None, "reset": []}
    ConfigStore.instance().store(_RESUMED, OmegaConf.create(settings))
    on_run = _compose(_RESUMED, rest, None)
    new = _compose(config, overrides, own) if chosen else on_run
    if "weights" in chosen or any(_key(o).endswith(_NAMES_OF_PRETRAINED) for o in overrides):
        on_run.tree.weights.named = None
    for group in chosen:
        on_run.tree[group] = new.tree[group]
    return replace(
        on_run,
        config=config,
        overrides=overrides,
        choices={group: new.choices[group] for group in chosen},
        own=own,
        run=folder / "config.yaml",
    )


def _composition_error(error: Exception, overrides: Sequence[str], own: Path | None) -> ConfigError:
    text = str(error)
    missing = re.search(r"Could not find '([^']+)/([^/']+)'", text)
    if missing:
        group, option = missing.groups()
        return unknown_option(group, option, options_of(group, own))
    quoted = [*filter(None, map(_quoted_override, overrides))]
    fix = f"quote a value that holds such characters: {' '.join(quoted)}" if quoted else None
    return ConfigError("the configuration cannot be composed", found=text, fix=fix)


def _quoted_override(override: str) -> str | None:
    """An override that Hydra cannot read, or takes for several, as it is typed with quotes."""
    try:
        if not OverridesParser.create().parse_override(override).is_sweep_override():
            return None
    except HydraException:
        pass
    key, _, value = override.partition("=")
    escaped = re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", value))
    text = f"{key}='{escaped}'"
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


# --------------------------------------------------------------------- reading
def _with_weights_apart(composition: Composition) -> tuple[dict[Any, Any], list[str]]:
    """The resolved configuration with all keys about weights in their own group.

    Returns:
        The configuration, and the keys that were given as keys of `finetuning`.

    Raises:
        ConfigError: `finetuning` and `weights` contradict each other.
    """
    raw: Any = OmegaConf.to_container(composition.tree)
    tuning = raw.get("finetuning")
    if not isinstance(tuning, dict):
        return _with_number_keys(OmegaConf.to_container(composition.tree, resolve=True)), []
    moved = [key for key in WEIGHTS_KEYS if key in tuning]
    try:
        chosen = composition.choices.get("weights")
        raw = with_chosen_weights(raw, chosen, composition.own, composition.rank)
        raw = move_to_weights(raw, composition.rank)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if "${" not in str(raw):  # nothing to resolve, which would take a fifth of the time
        return _with_number_keys(raw), moved
    # A user's own YAML may refer to ${finetuning.pretrained}.
    both = [key for key in WEIGHTS_KEYS if key in raw["weights"]]
    raw["finetuning"].update({key: f"${{weights.{key}}}" for key in both})
    plain = _with_number_keys(OmegaConf.to_container(OmegaConf.create(raw), resolve=True))
    for key in both:
        del plain["finetuning"][key]
    return plain, moved


def _with_number_keys(tree: Any) -> Any:
    """The same tree with keys that are written as numbers made numbers; the last one counts."""
    if isinstance(tree, Mapping):
        return {
            int(k) if isinstance(k, str) and re.fullmatch(r"-?\d+", k) else k: _with_number_keys(v)
            for k, v in tree.items()
        }
    if isinstance(tree, list):
        return [_with_number_keys(item) for item in tree]
    return tree
