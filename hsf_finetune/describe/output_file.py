"""Where the dataset YAML is written, and the commands that use it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from hsf_finetune.system.errors import ConfigError, OutputError


@dataclass(frozen=True)
class OutputFile:
    """Where the YAML is written.

    Args:
        file: the YAML.
        name: its name for `datasets=`.
        config_dir: the folder for `--config-dir`.
        move_command: the command that moves the file there first; empty if it already lies in
            a folder named `datasets`.
    """

    file: Path
    name: str
    config_dir: Path
    move_command: str = ""

    @property
    def table(self) -> Path:
        """Where a table of the cases is written, if one is needed."""
        return self.file.with_suffix(".csv").absolute()

    def commands(self, overrides: Sequence[str] = ()) -> list[str]:
        """The commands that check the data, train from random weights, and fine-tune."""
        chosen = f"--config-dir {_shell_word(self.config_dir)} datasets={self.name}"
        options = " ".join([chosen, *overrides])
        commands = [
            f"hsf-finetune check {options}",
            f"hsf-finetune train {options}",
            f"hsf-finetune finetune {options} finetuning.pretrained=PATH",
        ]
        return [self.move_command, *commands] if self.move_command else commands


def find_output_file(folder: Path, output: Path | None) -> OutputFile:
    """Where the YAML is written; Hydra finds it in a folder named `datasets`.

    Without a chosen output this is `my_conf/datasets/FOLDER.yaml`, with a name that Hydra reads.

    Raises:
        ConfigError: the name of the file cannot be an option, or it is no YAML.
    """
    if output is None:
        plain = normalize("NFKD", folder.expanduser().resolve().name)
        name = re.sub(r"[^A-Za-z0-9-]+", "_", re.sub(r"[\u0300-\u036f]", "", plain)).strip("_-")
        name = name if _is_name(name) else f"data_{name}".rstrip("_")
        output = Path("my_conf/datasets") / f"{name}.yaml"
    if output.suffix != ".yaml" or not _is_name(output.stem):
        raise ConfigError(
            "not a name that datasets= can choose",
            found=output.name,
            expected="a letter, then letters, digits, _ and -, followed by .yaml",
            fix=f"-o {output.with_name('mine.yaml')}",
        )
    file = output.expanduser()
    parent = file.absolute().parent
    if parent.name == "datasets":
        return OutputFile(file, file.stem, parent.parent)
    config_dir = file.parent / "my_conf"
    datasets = _shell_word(config_dir / "datasets")
    move = f"mkdir -p {datasets} && mv {_shell_word(file)} {datasets}/"
    return OutputFile(file, file.stem, config_dir, move)


def _is_name(text: str) -> bool:
    """Whether `datasets=TEXT` chooses an option: Hydra reads some words as values."""
    is_word = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text) is not None
    return is_word and text.lower() not in ("null", "true", "false", "nan", "inf")


def refuse_existing(file: Path, force: bool) -> None:
    """Keeps an existing file unless the user forces the command.

    Raises:
        OutputError: the file exists.
    """
    if file.exists() and not force:
        raise OutputError(
            "the file exists already",
            file=file,
            fix="choose another one with -o, or overwrite it with --force",
        )


def _shell_word(path: Path) -> str:
    path = path.absolute()
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.quote(path.as_posix())
