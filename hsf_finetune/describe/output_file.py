"""Where the dataset YAML goes, and how it is then chosen."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.system.errors import ConfigError


@dataclass(frozen=True)
class Target:
    """Where the YAML goes.

    Args:
        file: the YAML.
        name: what `datasets=` calls it.
        config_dir: the folder for `--config-dir`.
        before: what to type first, where the file does not lie in such a folder.
    """

    file: Path
    name: str
    config_dir: Path
    before: str = ""

    def commands(self, overrides: Sequence[str] = ()) -> list[str]:
        """What to type to check the data, and to fine-tune on them."""
        chosen = f"--config-dir {_word(self.config_dir)} datasets={self.name}"
        every = " ".join([chosen, *overrides])
        uses = [f"hsf-finetune check {every}", f"hsf-finetune finetune {every}"]
        return [self.before, *uses] if self.before else uses


def find_target(folder: Path, output: Path | None) -> Target:
    """Where the YAML goes and how it is then chosen, which needs a folder named `datasets`.

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
            expected="letters, digits, _ and -, and .yaml behind them",
            fix=f"-o {output.with_name('mine.yaml')}",
        )
    file = output.expanduser()
    # Hydra knows datasets=NAME by the folder that the file lies in.
    if file.absolute().parent.name == "datasets":
        return Target(file, file.stem, file.absolute().parent.parent)
    home = file.parent / "my_conf"
    place = _word(home / "datasets")
    return Target(file, file.stem, home, f"mkdir -p {place} && mv {_word(file)} {place}/")


# -------------------------------------------------------------------- internals
def _word(path: Path) -> str:
    path = path.absolute()
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.quote(path.as_posix())
