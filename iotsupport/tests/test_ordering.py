"""A random order is the seed's alone, leaves no test out, and makes nothing twice that a module makes once."""

from __future__ import annotations

import random

import pytest

from iotsupport.tests.support.ordering import shuffled

pytest_plugins = ["pytester"]

ALONE = """
def test_a(): pass
def test_b(): pass
def test_c(): pass
def test_d(): pass
"""
SHARING = """
import pytest

@pytest.fixture(scope="module")
def server(): pass

@pytest.fixture
def client(server): pass

def test_a(server): pass
def test_b(client): pass
def test_c(server): pass
def test_d(): pass
"""


@pytest.fixture
def items(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> list[pytest.Item]:
    """Four modules of four tests each: two whose tests share nothing, two with one alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # Django is set up already
    pytester.makepyfile(test_1=ALONE, test_2=ALONE, test_3=SHARING, test_4=SHARING)
    return pytester.inline_genitems()[0]


def names(items: list[pytest.Item]) -> list[str]:
    return [item.nodeid for item in items]


def test_an_order_is_repeated_by_its_seed(items):
    assert names(shuffled(items, "a")) == names(shuffled(items, "a"))


def test_another_seed_is_another_order(items):
    orders = {tuple(names(shuffled(items, seed))) for seed in "abcdefgh"}

    assert len(orders) == 8
    assert tuple(names(items)) not in orders


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_every_test_is_in_it_once(items, seed):
    assert sorted(names(shuffled(items, seed))) == sorted(names(items))
    assert len(items) == 16


@pytest.mark.parametrize("seed", ["a", "b", "c"])
@pytest.mark.parametrize("module", ["test_3.py", "test_4.py"])
def test_those_that_share_what_is_made_for_their_module_stay_together(items, module, seed):
    order = names(shuffled(items, seed))

    places = sorted(order.index(f"{module}::test_{letter}") for letter in "abc")
    assert places == list(range(places[0], places[0] + 3))


def test_the_others_are_anywhere(items):
    modules = [name.partition(":")[0] for name in names(shuffled(items, "a")) if name[:6] in {"test_1", "test_2"}]

    assert modules not in (sorted(modules), sorted(modules, reverse=True))


def test_random_goes_on_as_if_nothing_had_been_shuffled(items):
    before = random.getstate()

    shuffled(items, "a")

    assert random.getstate() == before


def test_numbered_tests_of_a_module_stay_in_their_order(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    story = SHARING.replace("test_d()", "test_d(client)")
    for number, letter in enumerate("abcd"):
        story = story.replace(f"test_{letter}(", f"test_{number}_{letter}(")
    pytester.makepyfile(test_story=story)
    items = pytester.inline_genitems()[0]

    assert all(names(shuffled(items, seed)) == names(items) for seed in "abcdefgh")
