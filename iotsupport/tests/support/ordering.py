"""The tests in an order that nobody chose, to find those that need what another one left."""

from __future__ import annotations

import random
import re
from collections.abc import Hashable

import pytest

NUMBERED = re.compile(r"test_\d+_")


def shuffled(items: list[pytest.Item], seed: str) -> list[pytest.Item]:
    """The same tests in an order that the seed alone decides: all of pytest-xdist's workers must find the same one.

    Those of a module that share what is made once for it stay together: else it would be made again and again. Where
    they are numbered (``test_1_…``), they tell one story, and stay in its order.
    """
    order = random.Random(seed)  # noqa: S311 - to be repeatable; and the tests' own ``random`` is left alone
    groups: dict[Hashable, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(item.path if shares_with_its_module(item) else item, []).append(item)
    together = list(groups.values())
    order.shuffle(together)
    for group in together:
        if not any(NUMBERED.match(item.name) for item in group):
            order.shuffle(group)
    return [item for group in together for item in group]


def shares_with_its_module(item: pytest.Item) -> bool:
    """Whether it uses what is made once for its module."""
    # pytest has no public way to ask for a fixture's scope.
    info = getattr(item, "_fixtureinfo", None)
    fixtures = info.name2fixturedefs.values() if info is not None else []
    return any(fixture.scope == "module" for definitions in fixtures for fixture in definitions)
