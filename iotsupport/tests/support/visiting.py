"""Fixtures of a module whose tests do what a person does: with its own ``server``, import all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from iotsupport.tests.support.browser import Visitor, chromium
from iotsupport.tests.support.server import Server

__all__ = ["administrator", "browser", "somebody", "stranger", "visitor"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def administrator(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server) as visitor:
        yield visitor.enter()


@pytest.fixture
def visitor(administrator: Visitor) -> Iterator[Visitor]:
    """The administrator, whom no page may show an error of its own, or send to another host."""
    with administrator.visit():
        yield administrator
        assert administrator.troubles == []


@pytest.fixture(scope="module")
def somebody(browser: Browser, server: Server) -> Iterator[Visitor]:
    with Visitor(browser, server) as visitor:
        yield visitor


@pytest.fixture
def stranger(somebody: Visitor) -> Iterator[Visitor]:
    """Who has not signed in, at another browser than the administrator's."""
    somebody.context.clear_cookies()
    with somebody.visit():
        yield somebody
        assert somebody.troubles == []
