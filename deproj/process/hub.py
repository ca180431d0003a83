"""Files from the Hub and to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from deproj.process.errors import UserError

__all__ = ["download", "reach", "told", "upload"]


def download(repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Files of a repository on the Hub, or of its copy here, which is asked for once; returns their folder."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError, HfHubHTTPError, httpx.HTTPError) as error:
        raise UserError(f"no folder {repo_id}, and no such model from the Hub: {told(error)}") from None


def reach(source: str, file: str, what: str) -> None:
    """Asks the Hub for one small file of what is no local folder.

    Where there is no network, this fails at once, while loading the parts would retry for minutes.

    Raises:
        UserError: for what is neither a folder nor on the Hub, nor downloaded.
    """
    folder = Path(source)
    if folder.is_dir():
        return
    if folder.is_absolute() or len(folder.parts) != 2 or folder.parts[0] in (".", ".."):
        raise UserError(f"no {what} at {source!r}: give a folder, or a hub id such as owner/name.")
    download(source, [file])


def told(error: Exception) -> str:
    """An error of the Hub in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def upload(
    folder: Path, files: Sequence[str], repo_id: str, message: str, private: bool | None, token: str | None, **options: Any
) -> str:
    """Makes the repository where there is none, and commits files of a folder to it.

    Returns:
        The commit's address.
    """
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit: Any = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, allow_patterns=list(files), **options
        )
    except (OSError, ValueError, HfHubHTTPError, httpx.HTTPError) as error:
        raise UserError(f"{repo_id} could not be pushed: {told(error)} (`hf auth login` stores a token.)") from None
    return str(commit.pr_url or commit.commit_url)
