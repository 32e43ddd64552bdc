"""The YAML files of settings: the shipped ones, and those of the user's own folder."""

from __future__ import annotations

from pathlib import Path

from hsf_finetune.system.errors import ConfigError


def conf_folder() -> Path:
    """The folder of the shipped YAML files, in a checkout or in an installed package."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def own_folder(config_dir: str | Path | None) -> Path | None:
    """The folder of `--config-dir`, absolute.

    Raises:
        ConfigError: it is no folder.
    """
    if config_dir is None:
        return None
    folder = Path(config_dir).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(
            "--config-dir is not a folder",
            file=folder,
            expected="a folder that holds groups, such as DIR/datasets/mine.yaml",
        )
    return folder


def groups(own: Path | None) -> list[str]:
    """The groups of settings that have options to choose from.

    Args:
        own: the user's own folder, if any.
    """
    folders = [folder for base in _bases(own) for folder in base.iterdir()]
    return sorted({f.name for f in folders if f.is_dir() and any(f.glob("*.yaml"))})


def options_of(group: str, own: Path | None) -> list[str]:
    """The options of a group, shipped or the user's own."""
    return sorted({path.stem for base in _bases(own) for path in (base / group).glob("*.yaml")})


def yaml_file(name: str, own: Path | None) -> Path | None:
    """The file of an option, such as `models/unet`; the user's own one comes first."""
    candidates = [base / f"{name}.yaml" for base in _bases(own)]
    return next((path for path in candidates if path.exists()), None)


def _bases(own: Path | None) -> list[Path]:
    return [own, conf_folder()] if own else [conf_folder()]
