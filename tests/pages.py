"""The documentation as data: its Python snippets, files, commands, links, headings and code spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
SPAN = re.compile(r"`([^`\n]+)`")
#: A code span that begins so is a command.
PROGRAMS = re.compile(r"^(python|py|pip|make|tensorboard|source|sbatch|\.venv\\\S+) \S|^\.venv\\\S+$")


@dataclass(frozen=True)
class Block:
    """Fenced code: its language, and the file that it is the content of, or an empty title."""

    language: str
    title: str
    body: str


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        return [Block(found["language"], found["title"] or "", found["body"]) for found in FENCE.finditer(self.text)]

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return FENCE.sub("", self.text)

    @property
    def snippets(self) -> list[str]:
        """Python to be run, in order."""
        return [block.body for block in self.blocks if block.language == "python" and not block.title]

    @property
    def files(self) -> dict[str, str]:
        """Files that the reader is to write, by path."""
        return {block.title: block.body for block in self.blocks if block.title}

    @property
    def spans(self) -> list[str]:
        return [span for line in self.prose.splitlines() if not line.startswith("    ") for span in SPAN.findall(line)]

    @property
    def commands(self) -> Iterator[str]:
        """Lines of indented and ``sh`` blocks, without comments, and code spans that are commands."""
        lines = [line[4:] for line in self.prose.splitlines() if line.startswith("    ")]
        lines += [line for block in self.blocks if block.language == "sh" for line in block.body.splitlines()]
        for line in lines:
            if command := re.sub(r"(^|\s+)#\s.*$", "", line).strip():
                yield command
        yield from (span for span in self.spans if PROGRAMS.match(span))

    @property
    def links(self) -> list[str]:
        return LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """Headings as GitHub names them in links."""
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(self.prose)}


def pages() -> list[Page]:
    return [Page(path) for path in PAGES]
