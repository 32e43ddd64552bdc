"""A value that Hydra cannot read is refused with the line to type instead."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from hsf_finetune.config.compose import compose
from hsf_finetune.system.errors import ConfigError


@pytest.mark.skipif(shutil.which("bash") is None, reason="the line is one for a shell")
@pytest.mark.parametrize("character", [*"()^,#'~{}[]=&\"é漢", "\\'", "'\"", "$("])
def test_the_line_that_is_proposed_gives_the_value(character: str) -> None:
    for value in (f"/data/a{character}b", f"/data/a{character}"):
        try:
            compose("train", [f"datasets.main_path={value}"])
        except ConfigError as error:
            line = str(error.fix).partition("quote a value that holds such characters: ")[2]
            script = f"printf '%s' {line}"
            typed = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
            override = typed.stdout.decode()
            assert compose("train", [override]).datasets.main_path == value
        else:
            assert character == "$("
