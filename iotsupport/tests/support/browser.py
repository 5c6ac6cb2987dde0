"""The admin as somebody uses it: in the system's chromium without its window, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from iotsupport.tests.support.server import Server
from iotsupport.tests.support.waiting import LIMIT

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # All tabs of a person in one process: each new one takes a second of the processor until it has read the scripts.
    "--process-per-site",
]

EDITOR = ".django-ace-widget"

# It waits for five seconds otherwise.
expect.set_options(timeout=LIMIT * 1000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's own; nothing is downloaded.

    The shell is the same engine without what is around a page, which takes more of the processor than the pages do.
    """
    program = shutil.which("chromium-headless-shell") or "/usr/bin/chromium-headless-shell"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS, timeout=LIMIT * 1000)
        yield browser
        browser.close()


class Visitor:
    """One person at a browser, with cookies of their own. ``troubles`` collects what nobody should have to see."""

    _first: Page | None = None

    def __init__(self, browser: Browser, server: Server, **options: Any) -> None:
        """``options`` are those of a browser context, such as ``color_scheme``."""
        self.troubles: list[str] = []
        self.server = server
        self.host = urlsplit(server.url).netloc
        self.context: BrowserContext = browser.new_context(
            base_url=server.url, viewport={"width": 1280, "height": 800}, **options
        )
        self.context.set_default_timeout(LIMIT * 1000)
        self.context.on("console", self._read_console)
        self.context.on("weberror", lambda error: self.troubles.append(f"exception: {error.error}"))
        self.context.on("request", self._look_at_host)
        self.context.on("requestfailed", self._look_at_failure)
        self.page: Page = self.context.new_page()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.context.close()

    @contextmanager
    def new_page(self) -> Iterator[Page]:
        """Go on in a tab of its own; what happened before is forgotten, but not the cookies and the cache."""
        if self._first is None:
            # It stays where it is: the process of the tabs would end with the last of them.
            self._first = self.page
            self._first.goto("/health")
        self.troubles.clear()
        self.page = self.context.new_page()
        yield self.page
        for page in self.context.pages:
            if page is not self._first:
                page.close()

    def sign_in(self, username: str, password: str) -> Self:
        self.page.goto("/admin/login/")
        self.page.fill("[name=username]", username)
        self.page.fill("[name=password]", password)
        self.follow("[type=submit]")
        return self

    def enter(self) -> Self:
        """Be the administrator, who signed in before."""
        cookies = self.server.cookies.items()
        self.context.add_cookies([{"name": name, "value": value, "url": self.server.url} for name, value in cookies])
        return self

    def open(self, path: str, page: Page | None = None) -> Page:
        """Open a page of the admin, and wait for its editor, if it has one."""
        page = page or self.page
        page.goto(f"/admin/{path}", wait_until="load")
        return page

    def editor_text(self) -> str:
        """What the JSON editor shows."""
        self.page.wait_for_selector(f"{EDITOR} .ace_content")
        return str(self.page.eval_on_selector(EDITOR, "widget => widget.editor.getValue()"))

    def type_config(self, text: str, page: Page | None = None) -> None:
        """Replace what the JSON editor shows, as pasting does."""
        page = page or self.page
        page.click(f"{EDITOR} .ace_content")
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(text)

    def paste(self, selector: str, text: str) -> None:
        """Put text into a field as a clipboard does: a browser cuts that to ``maxlength``, unlike ``fill``."""
        self.page.focus(selector)
        self.page.keyboard.insert_text(text)

    def follow(self, selector: str, page: Page | None = None) -> None:
        """Click on what leads to another page, and wait for that."""
        page = page or self.page
        with page.expect_navigation(wait_until="load"):
            page.click(selector)

    def save(self, page: Page | None = None) -> None:
        self.follow("[name=_save]", page)

    def errors(self) -> str:
        return "\n".join(self.page.locator(".errorlist li").all_inner_texts())

    def messages(self) -> str:
        return "\n".join(self.page.locator(".messagelist li").all_inner_texts())

    def rows(self) -> Locator:
        return self.page.locator("#result_list tbody tr")

    def _read_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"{message.type}: {message.text}")

    def _look_at_host(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != self.host:
            self.troubles.append(f"foreign host: {request.url}")

    def _look_at_failure(self, request: Request) -> None:
        # Going on to the next page ends what is still being loaded.
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"failed: {request.url} ({request.failure})")
