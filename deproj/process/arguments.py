"""The commands' options, whose mistakes are told in a line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from deproj.process.system import command_line, quoted

__all__ = ["Parser"]

#: What other programs call an option.
ELSEWHERE = {
    "--batch": "--count",
    "--cfg": "--guidance",
    "--cfg-scale": "--guidance",
    "--ckpt": "--sd",
    "--guidance-scale": "--guidance",
    "--n": "--count",
    "--neg": "--negative",
    "--negative-prompt": "--negative",
    "--num-images": "--count",
    "--num-inference-steps": "--sampler-steps",
    "--outdir": "--out",
    "--output": "--out",
    "--sampling-steps": "--sampler-steps",
}


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in a line, with what was likely meant, where argparse would show all options."""

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog, description=description, epilog=epilog, allow_abbrev=False)  # else --n would be --negative

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        return self.whole(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        return self.whole(*self.parse_known_intermixed_args(args, namespace))

    def whole(self, parsed: argparse.Namespace, unknown: list[str]) -> argparse.Namespace:
        """What was parsed, if it was all."""
        if unknown:
            self.error(self.unknown(unknown))
        return parsed

    def error(self, message: str) -> NoReturn:
        said = re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message)
        if choice := re.match(r"(\S+): invalid choice: '(.*?)' \(choose from (.*)\)", said, re.DOTALL):
            allowed = [one.strip("' ") for one in choice[3].split(",")]
            said = f"{choice[1]} is one of {', '.join(allowed)}; got {choice[2]!r}.{meant(choice[2], allowed)}"
        elif value := re.match(r"(\S+): invalid (\w+) value: (.*)", said, re.DOTALL):
            kinds = {"int": "a whole number", "float": "a number"}
            said = f"{value[1]} is {kinds.get(value[2], f'a {value[2]}')}; got {value[3]}."
        end = "" if said.endswith("?") else "."
        self.exit(2, f"error: {said.rstrip('.')}{end} {self.prog} --help explains the options.\n")

    def unknown(self, arguments: list[str]) -> str:
        """What is to be told of arguments that there aren't."""
        flags = [argument for argument in arguments if argument.startswith("-")]
        if not flags:
            many = "is one argument" if len(arguments) == 1 else f"are {len(arguments)} arguments"
            return f"{command_line(arguments)} {many} too many"
        flag = flags[0].partition("=")[0]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        if not flag.startswith("--"):
            prompts = any(action.dest == "prompts" for action in self._actions)
            stands = f". A prompt that begins with - stands after --: -- {quoted(flags[0])}" if prompts else ""
            return f"there is no option {flag}{stands}"
        same = ELSEWHERE.get(flag.lower().replace("_", "-"))
        return f"there is no option {flag}.{f' Did you mean {same}?' if same in known else meant(flag, known)}"


def meant(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, 1, 0.7)
    return f" Did you mean {near[0]}?" if near else ""
