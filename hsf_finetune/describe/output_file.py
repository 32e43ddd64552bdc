"""Where the dataset YAML is written, and the commands that use it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        """The commands that check the data, and that fine-tune on them."""
        chosen = f"--config-dir {_shell_word(self.config_dir)} datasets={self.name}"
        options = " ".join([chosen, *overrides])
        commands = [f"hsf-finetune check {options}", f"hsf-finetune finetune {options}"]
        return [self.move_command, *commands] if self.move_command else commands


def find_output_file(folder: Path, output: Path | None) -> OutputFile:
    """Where the YAML is written; Hydra finds it in a folder named `datasets`.

    Without a chosen output this is `my_conf/datasets/FOLDER.yaml`.

    Raises:
        ConfigError: the name of the file cannot be an option, or it is no YAML.
    """
    if output is None:
        name = re.sub(r"[^\w-]+", "_", folder.expanduser().resolve().name).strip("_") or "data"
        output = Path("my_conf/datasets") / f"{name}.yaml"
    if output.suffix != ".yaml" or not re.fullmatch(r"[A-Za-z_][\w-]*", output.stem):
        raise ConfigError(
            "not a name that datasets= can choose",
            found=output.name,
            expected="letters, digits, _ and -, followed by .yaml",
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
