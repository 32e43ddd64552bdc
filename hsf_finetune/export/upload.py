"""Sends a finished export to the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hsf_finetune.system.errors import ConfigError, OutputError

_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)")


def repository_of(address: str) -> str:
    """The repository that `hf://OWNER/NAME` stands for: `OWNER/NAME`.

    Raises:
        ConfigError: the address has another form.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(
            "not the address of a repository on the Hugging Face Hub",
            found=address,
            expected="hf://OWNER/NAME",
        )
    return found[1]


def upload_folder(folder: Path, repository: str) -> str:
    """Sends a folder to a new private repository, with the token of huggingface_hub.

    The environment variable HF_ENDPOINT names another hub.

    Args:
        folder: a finished export.
        repository: `OWNER/NAME`, which must not exist.

    Returns:
        The repository's page.

    Raises:
        OutputError: there is no token, the repository exists, or the hub refuses it.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        page = api.create_repo(repository, private=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export")
    except Exception as error:  # its own, those of its HTTP library, and the system's
        raise OutputError(
            "the export could not be sent to the Hugging Face Hub; the folder is complete",
            file=folder,
            found=str(error).splitlines()[0],
            fix="log in with a token that may write (huggingface-cli login), or give the name of a "
            f"new repository; then: huggingface-cli upload {repository} {folder}",
        ) from error
    return str(page)
