"""Why a file could not be fetched, in words that help."""

from __future__ import annotations

import errno
import os
from http import HTTPStatus
from pathlib import Path

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.system.urls import Address

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def refused(address: Address, status: int, reason: str | None) -> WeightsError:
    """The error for an answer other than the file."""
    known = reason or (HTTPStatus(status).phrase if status in set(HTTPStatus) else "")
    if status in (401, 403) and address.hub:
        fix = (
            "check owner and repository; where it is gated or private, accept its terms on its "
            "page and set the environment variable HF_TOKEN"
        )
    elif status in (401, 403):
        fix = "put user name and password into ~/.netrc (machine HOST login NAME password WORD)"
    elif status in (404, 410):
        fix = "check the address, best by opening it in a browser"
    else:
        fix = "open the address in a browser to see what the server says"
    return WeightsError(
        "the server does not give the file",
        file=_names(address),
        found=f"HTTP status {status} ({known})",
        fix=f"{fix}; or {by_hand(address)}",
    )


def not_a_file(address: Address, found: str) -> WeightsError:
    """The error for something else where a checkpoint was expected."""
    return WeightsError(
        "the address does not lead to a checkpoint",
        file=_names(address),
        found=found,
        expected="the file itself",
        fix="give the address behind the page's download button (on the Hugging Face Hub it has "
        f"/resolve/, not /blob/); or {by_hand(address)}",
    )


def unreachable(address: Address, reason: str, part: Path) -> WeightsError:
    """The error for a connection that failed again and again."""
    arrived = part.stat().st_size if part.is_file() else 0
    return WeightsError(
        "the file could not be fetched",
        file=_names(address),
        found=reason + (f"; {arrived:,} bytes have arrived and are kept" if arrived else ""),
        fix="check the address and the connection, and start again"
        + (", which goes on from there" if arrived else "")
        + f"; or {by_hand(address)}",
    )


def not_trusted(address: Address, reason: str) -> WeightsError:
    """The error for a server whose certificate does not hold."""
    return WeightsError(
        "the server cannot prove that it is the one of that name",
        file=_names(address),
        found=reason,
        fix="where your institution has a certificate authority of its own, set the environment "
        f"variable REQUESTS_CA_BUNDLE to its file; or {by_hand(address)}",
    )


def no_room(address: Address, error: OSError, path: Path) -> WeightsError:
    """The error for a file that could not be written."""
    full = error.errno in _NO_ROOM
    return WeightsError(
        "the file could not be kept",
        file=_names(address),
        found=f"{os.strerror(error.errno) if error.errno else error} ({path})",
        fix=("free some space there" if full else "make that folder writable")
        + ", or set the environment variable HSF_FINETUNE_CACHE to another folder",
    )


def by_hand(address: Address) -> str:
    """The way around every trouble with the network."""
    return f"fetch it with a browser and put it at\n{address.cache_file}"


def _names(address: Address) -> str:
    return address.url if address.source == address.url else f"{address.source} ({address.url})"
