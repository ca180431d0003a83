"""Lists runs and sweeps: ``python -m deproj.runs FOLDER...``, by default those in ``runs/`` and ``sweeps/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.runs.listing import listed, table
from deproj.runs.offline import offline_runs, was_sent

__all__ = ["main"]

USUAL = (Path("runs"), Path("sweeps"))


def usual(folders: list[Path]) -> list[Path]:
    """The folders that are named, or the usual ones.

    Raises:
        UserError: where there are none, or one isn't there.
    """
    chosen = folders or [folder for folder in USUAL if folder.is_dir()]
    if not chosen:
        raise UserError("there are no runs/ and sweeps/ here; name a folder: python -m deproj.runs FOLDER.")
    for folder in chosen:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}.")
    return chosen


def show(folders: list[Path]) -> None:
    """Prints the runs in folders.

    Raises:
        UserError: where there are none.
    """
    chosen = usual(folders)
    if not (rows := listed(chosen)):
        raise UserError(f"no runs in {', '.join(map(str, chosen))}.")
    print(table(rows))


def sync(folders: list[Path]) -> None:
    """Sends the W&B runs that are stored offline, and were not sent yet.

    Raises:
        UserError: where one could not be sent.
    """
    found = [path for folder in usual(folders) for path in offline_runs(folder)]
    left = [path for path in found if not was_sent(path)]
    if not left:
        print("No offline W&B run is left to send." if found else "There are no offline W&B runs here (logger=wandb makes them).")
        return
    for number, path in enumerate(left, 1):
        print(f"[{number}/{len(left)}] {path.parent}", flush=True)
        if subprocess.run([sys.executable, "-m", "wandb", "sync", str(path.parent)]).returncode:
            raise UserError(f"{path.parent} was not sent; the lines above are W&B's own. Runs that were sent are not sent again.")
    before = f"; {len(found) - len(left)} had been sent before" if len(found) > len(left) else ""
    print(f"Sent {len(left)} offline run{'s' * (len(left) != 1)}{before}.")


def main() -> int:
    parser = Parser(prog="python -m deproj.runs", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of runs and sweeps (runs/ and sweeps/)")
    parser.add_argument("--sync", action="store_true", help="sends the W&B runs in them that are stored offline")
    args = parser.parse_args()
    return run_command(lambda: (sync if args.sync else show)(args.folders))


if __name__ == "__main__":
    sys.exit(main())
