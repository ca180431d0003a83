"""Lists runs and sweeps: ``python -m deproj.runs FOLDER...``, by default those in ``runs/`` and ``sweeps/``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deproj.process.errors import UserError, run_command
from deproj.runs.listing import listed, table

__all__ = ["main"]

USUAL = (Path("runs"), Path("sweeps"))


def show(folders: list[Path]) -> None:
    """Prints the runs in folders.

    Raises:
        UserError: where there are none.
    """
    chosen = folders or [folder for folder in USUAL if folder.is_dir()]
    if not chosen:
        raise UserError("there are no runs/ and sweeps/ here; name a folder: python -m deproj.runs FOLDER.")
    if not (rows := listed(chosen)):
        raise UserError(f"no runs in {', '.join(map(str, chosen))}.")
    print(table(rows))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deproj.runs", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of runs and sweeps (runs/ and sweeps/)")
    args = parser.parse_args()
    return run_command(lambda: show(args.folders))


if __name__ == "__main__":
    sys.exit(main())
