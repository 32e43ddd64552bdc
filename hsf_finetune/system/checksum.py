"""Checksums: how they are written, and whether a file has one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import xxhash

from hsf_finetune.system.errors import ConfigError, WeightsError

_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "xxh3_64": 16, "xxh3_128": 32, "md5": 32}
"""Hexadecimal digits of each algorithm; of two with equally many, digits alone mean the last."""
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Checksum:
    """A checksum of a file's bytes.

    Args:
        algorithm: one of sha256, sha512, sha1, md5, xxh3_64 (which HSF publishes) and xxh3_128.
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
        by_length = {length: algorithm for algorithm, length in _DIGITS.items()}
        algorithm = name or by_length.get(len(digits), "")
        if not re.fullmatch(r"[0-9a-f]+", digits) or len(digits) != _DIGITS.get(algorithm):
            known = ", ".join(f"{name}:({count} digits)" for name, count in _DIGITS.items())
            raise ConfigError(
                "this is not a checksum",
                found=f"'{text}', which has {len(digits)} digits",
                expected=f"hexadecimal digits after the algorithm's name, one of {known}",
            )
        return cls(algorithm, digits)

    @classmethod
    def of_file(cls, path: Path, algorithm: str = "sha256") -> Checksum:
        """The checksum of a file."""
        if algorithm.startswith("xxh"):
            digest = getattr(xxhash, algorithm)()
        else:
            digest = hashlib.new(algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return cls(algorithm, digest.hexdigest())

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"{self.algorithm}:{self.digits}"


def check_file(path: Path, expected: Checksum, fix: str, source: str | None = None) -> None:
    """Refuses a file with another checksum, and leaves the file where it is.

    Args:
        path: the file.
        expected: the checksum that the file must have.
        fix: what to do where the checksums differ.
        source: where the file comes from; named in the error instead of the path.

    Raises:
        WeightsError: the checksums differ; names both.
    """
    found = Checksum.of_file(path, expected.algorithm)
    if found != expected:
        raise WeightsError(
            "the file does not have the expected checksum",
            file=source or path,
            found=f"{found}, {path.stat().st_size:,} bytes",
            expected=expected,
            fix=fix,
        )
