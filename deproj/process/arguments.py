"""The commands' options, whose mistakes are told in a line."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import NoReturn

__all__ = ["Parser"]

#: What other programs call an option.
ELSEWHERE = {
    "--batch": ("--count",),
    "--cfg": ("--guidance",),
    "--cfg-scale": ("--guidance",),
    "--ckpt": ("--sd",),
    "--guidance-scale": ("--guidance",),
    "--n": ("--count",),
    "--neg": ("--negative",),
    "--negative-prompt": ("--negative",),
    "--num-images": ("--count",),
    "--num-inference-steps": ("--sampler-steps",),
    "--outdir": ("--out",),
    "--output": ("--out",),
    "--sampling-steps": ("--sampler-steps",),
}


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in a line, with what was likely meant, where argparse would show all options."""

    def error(self, message: str) -> NoReturn:
        said = re.sub(r"^argument (\S+?)(/\S+)?: ", r"\1: ", message)
        if unknown := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
            said = self.unknown(unknown[1])
        elif choice := re.match(r"(\S+): invalid choice: '(.*?)' \(choose from (.*)\)", said, re.DOTALL):
            allowed = [one.strip("' ") for one in choice[3].split(",")]
            said = f"{choice[1]} is one of {', '.join(allowed)}; got {choice[2]!r}.{meant(choice[2], allowed)}"
        elif value := re.match(r"(\S+): invalid (\w+) value: (.*)", said, re.DOTALL):
            kinds = {"int": "a whole number", "float": "a number"}
            said = f"{value[1]} is {kinds.get(value[2], f'a {value[2]}')}; got {value[3]}."
        end = "" if said.endswith("?") else "."
        self.exit(2, f"error: {said.rstrip('.')}{end} {self.prog} --help explains the options.\n")

    def unknown(self, arguments: str) -> str:
        """What is to be told of arguments that there aren't."""
        flag = arguments.split()[0].partition("=")[0]
        if not flag.startswith("-"):
            return f"{arguments} is one argument too many"
        known = [option for option in self._option_string_actions if option.startswith("--")]
        same = [option for option in ELSEWHERE.get(flag.lower().replace("_", "-"), ()) if option in known]
        if not flag.startswith("--"):
            return f"there is no option {flag}. A prompt that begins with - stands after --: -- '{arguments}'"
        return f"there is no option {flag}.{f' Did you mean {same[0]}?' if same else meant(flag, known)}"


def meant(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, 1, 0.7)
    return f" Did you mean {near[0]}?" if near else ""
