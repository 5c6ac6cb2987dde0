"""docs/install.md as a list of commands, and what it says that a machine has afterwards."""

from __future__ import annotations

import re
from typing import NamedTuple

from iotsupport.settings import BASE_DIR

PAGE = BASE_DIR / "docs/install.md"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ON_PAPER = "On paper: "


class Block(NamedTuple):
    line: int
    """Of the page, where its commands begin."""
    commands: str
    is_on_paper: bool
    """Whether the paragraph above it says that it is not tried."""


def blocks() -> list[Block]:
    """All blocks of commands, in the order in which they are run."""
    text = PAGE.read_text()
    found = []
    for match in BLOCK.finditer(text):
        assert match[1] == "sh", f"{PAGE.name} has a block that is none of commands: {match[0]}"
        above = text[: match.start()].rstrip().rpartition("\n\n")[2]
        line = text[: match.start(2)].count("\n") + 1
        found.append(Block(line, match[2], above.startswith(ON_PAPER)))
    return found


def commands() -> list[Block]:
    """Those that can be tried."""
    return [block for block in blocks() if not block.is_on_paper]
