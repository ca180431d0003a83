"""Files from the Hub and to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from deproj.process.errors import UserError
from deproj.process.network import proxy

__all__ = ["cached", "download", "names_of", "reach", "told", "upload"]

#: What the Hub's library raises: of its own, of files, and of the library that it speaks HTTP with, which has changed once. An
#: ImportError is of a proxy by SOCKS, which that one needs a package for.
HUB_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, ImportError, HfHubHTTPError)
HUB_ERRORS += tuple(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError" and issubclass(kind, Exception))


def download(repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Files of a repository on the Hub, or of its copy here, which is asked for once; returns their folder."""
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(files)))
    except HUB_ERRORS as error:
        raise UserError(f"no folder {repo_id}, and no such model from the Hub: {told(error)}") from None


@cache
def names_of(repo_id: str) -> tuple[str, ...]:
    """Names of a repository's files; without the Hub, of those that were downloaded."""
    try:
        return tuple(file.rfilename for file in HfApi().model_info(repo_id, timeout=10).siblings or ())
    except HUB_ERRORS:
        pass
    if (folder := cached(repo_id)) is None:
        return ()
    return tuple(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def cached(repo_id: str) -> Path | None:
    """The folder of what was downloaded of a repository, without asking the Hub; it may lack files."""
    try:
        return Path(snapshot_download(repo_id, local_files_only=True))
    except (OSError, ValueError):
        return None


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
    """An error of the Hub in one line, with the proxy that may be the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    unreached = isinstance(error, ImportError) or any(word in str(error) for word in ("Connect", "proxy", "Proxy", "rrno"))
    return f"{said} (It was asked through the proxy of {proxy()}.)" if proxy() and unreached else said


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
    except HUB_ERRORS as error:
        raise UserError(f"{repo_id} could not be pushed: {told(error)} (`hf auth login` stores a token.)") from None
    return str(commit.pr_url or commit.commit_url)
