"""Checksums: how they are written, and that they are those that the algorithms publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsf_finetune.system.checksum import Checksum
from hsf_finetune.system.errors import ConfigError


@pytest.mark.parametrize(
    "text", ["", "abc", "sha256:12", "crc:12345678", "g" * 64, "md5:" + "0" * 31, "xxh3_64:", "md5"]
)
def test_checksums_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"sha256:\(64 digits\)"):
        Checksum.parse(text)


def test_a_checksum_is_the_one_that_the_algorithm_publishes(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert str(Checksum.of_file(tmp_path / "empty", "xxh3_64")) == "xxh3_64:2d06800538d394c2"
    assert (
        str(Checksum.of_file(tmp_path / "empty", "md5")) == "md5:d41d8cd98f00b204e9800998ecf8427e"
    )
