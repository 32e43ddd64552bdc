"""Checksums: how they are written, and whether a file has one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pooch import file_hash

from hsf_finetune.system.errors import ConfigError, WeightsError

_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32, "xxh3_64": 16, "xxh3_128": 32}
"""Hexadecimal digits of each algorithm."""
_WITHOUT_NAME = {64: "sha256", 128: "sha512", 40: "sha1", 32: "md5", 16: "xxh3_64"}
"""The algorithm that bare digits are taken for; 16 of them are what HSF publishes."""


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must come to.

    Args:
        algorithm: one of sha256, sha512, sha1, md5, xxh3_64 and xxh3_128.
        digits: lower-case hexadecimal digits.
    """

    algorithm: str
    digits: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """A checksum from `sha256:...`, another algorithm's name, or the digits alone.

        Raises:
            ConfigError: an unknown algorithm, or too many or too few digits for it.
        """
        name, _, digits = text.strip().lower().rpartition(":")
        algorithm = name or _WITHOUT_NAME.get(len(digits), "")
        good = re.fullmatch(r"[0-9a-f]+", digits) and len(digits) == _DIGITS.get(algorithm)
        if not good:
            known = ", ".join(f"{name}:({count} digits)" for name, count in _DIGITS.items())
            raise ConfigError(
                "this is no checksum",
                found=f"'{text}', which has {len(digits)} digits",
                expected=f"hexadecimal digits after the algorithm's name, one of {known}",
            )
        return cls(algorithm, digits)

    @classmethod
    def of_file(cls, path: Path, algorithm: str = "sha256") -> Checksum:
        """The checksum that a file has."""
        return cls(algorithm, file_hash(str(path), alg=algorithm))

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{self.algorithm}:{self.digits}"


def check_file(path: Path, wanted: Checksum, fix: str, source: str | None = None) -> None:
    """Refuses a file with another checksum, and leaves it where it is.

    Args:
        path: the file.
        wanted: what it must come to.
        fix: what to do where it does not.
        source: where it comes from, to be named instead of the path.

    Raises:
        WeightsError: the checksums differ; names both.
    """
    found = Checksum.of_file(path, wanted.algorithm)
    if found != wanted:
        raise WeightsError(
            "the file does not have the checksum that was given for it",
            file=source or path,
            found=f"{found}, {path.stat().st_size:,} bytes",
            expected=wanted,
            fix=fix,
        )
