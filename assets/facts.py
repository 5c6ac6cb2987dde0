"""What is different between two versions of an asset: facts about their bytes, and what was chosen with them."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.template.defaultfilters import filesizeformat

from assets.models import Asset

# As the pages name them.
FACTS = ["size", "sha256", "md5", "chip", "project", "version", "idf_version", "built", "elf_sha256", "image_sha256"]
NOTHING = "-"


class Fact(NamedTuple):
    name: str
    old: str
    new: str

    @property
    def is_changed(self) -> bool:
        return self.old != self.new


def compare(old: Any, new: Any) -> list[Fact]:
    """Return the facts of two versions or assets, without those that neither has; ``old`` may be None."""
    names = {field.name: str(field.verbose_name) for field in Asset._meta.fields}
    facts = [Fact(names[name], _tell(old, name), _tell(new, name)) for name in FACTS]
    facts.append(Fact("signed", *(_yes(row is not None and row.signed) for row in [old, new])))
    facts.append(Fact("boards that run it are told that nothing is new", *(_choice(row) for row in [old, new])))
    facts.append(Fact("doubts", *(" ".join(row.warnings) if row is not None else "" for row in [old, new])))
    return [Fact(*(text or NOTHING for text in fact)) for fact in facts if fact.old or fact.new]


def _tell(row: Any, name: str) -> str:
    if row is None:
        return ""
    value = getattr(row, name)
    if name != "size":
        return str(value)
    return f"{value:,} ({filesizeformat(value)})" if value >= 1024 else str(value)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else ""


def _choice(row: Any) -> str:
    return _yes(row is not None and row.unchanged_where_running)
