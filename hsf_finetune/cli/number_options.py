"""Numbers on the command line, which are refused where they cannot be meant."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from hsf_finetune.inference.scan_shards import Shard


def number_above_zero(unit: str) -> Callable[[str], float]:
    """What reads a finite number above 0.

    Args:
        unit: what is counted, such as mm, for the message.
    """
    return _read_number(f"a number of {unit}, more than 0", lambda found: found > 0)


def number_from_zero(unit: str) -> Callable[[str], float]:
    """What reads a finite number that is not negative; `unit` is that of `number_above_zero`."""
    return _read_number(f"a number of {unit}, 0 or more", lambda found: found >= 0)


def whole_number(least: int) -> Callable[[str], int]:
    """What reads a whole number of at least so much."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
        return found

    return read


def shard(text: str) -> Shard:
    """The part of the scans that a text such as `3/100` names."""
    try:
        return Shard.read(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no part of the scans; those of 100 are 1/100 to 100/100 (SLURM: "
            "--array=1-100 and --shard $SLURM_ARRAY_TASK_ID/100)"
        ) from None


def _read_number(expected: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not (math.isfinite(found) and fits(found)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return found

    return read
