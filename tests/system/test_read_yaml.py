"""YAML files that would take long to read, or much memory, are refused before they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.system.errors import ConfigError
from hsf_finetune.system.read_yaml import read_yaml

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGED = "b0: &b0 {x: 1}\n" + "".join(
    f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 10)}], k{n}: 1}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        MERGED,
        "a: " + "[" * 5000 + "]" * 5000,
        "a: &a\n  b: *a\n",
        "".join(f"k{n}: {n}\n" for n in range(100_000)),
        "a: " + "x" * 10_000_000,
    ],
    ids=["aliases", "merged", "deep", "itself", "keys", "bytes"],
)
def test_a_file_that_is_too_large_to_be_settings_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="too large") as caught:
        read_yaml(file)
    assert str(file) in str(caught.value)


def test_aliases_of_ordinary_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("a: &a {x: [1, 2]}\nb: [*a, *a]\n")
    assert read_yaml(file) == {"a": {"x": [1, 2]}, "b": [{"x": [1, 2]}, {"x": [1, 2]}]}
