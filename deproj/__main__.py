"""Lists the commands, or runs one: ``python -m deproj train selection=eos_onward``."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module

from deproj import __version__

__all__ = ["main"]

#: By name: the module whose `main` it is, and what it does in a line.
COMMANDS = {
    "train": ("deproj.train", "train a deprojector, or sweep over settings"),
    "runs": ("deproj.runs.__main__", "list runs and sweeps with their state and measures"),
    "evaluate": ("deproj.evaluate", "measure runs, models and baselines"),
    "report": ("deproj.report.__main__", "compare runs on one page"),
    "generate": ("deproj.generate.__main__", "draw pictures from prompts and pictures"),
    "demo": ("deproj.demo.__main__", "do the same on a page in the browser"),
    "bench": ("deproj.bench", "measure how fast it is"),
    "convert": ("deproj.convert", "take over a checkpoint of the reference implementation"),
    "fullsize": ("deproj.fullsize", "make a Stable Diffusion 1.5 of random weights, for trying its size"),
}


def listing() -> str:
    lines = [f"  {name:<10}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join([f"deproj {__version__}", "", *lines, "", "python -m deproj COMMAND --help explains one."])


def main() -> int:
    """Runs the command that is named; without one, prints the list of them."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(listing())
        return 0
    if name in ("--version", "-V"):
        print(__version__)
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        print(f"error: there is no command {name!r}; there are: {', '.join(COMMANDS)}.{meant}", file=sys.stderr)
        return 2
    sys.argv = [f"{sys.argv[0]} {name}", *sys.argv[2:]]
    code: int = import_module(COMMANDS[name][0]).main()
    return code


if __name__ == "__main__":
    sys.exit(main())
