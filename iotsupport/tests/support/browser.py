"""The admin as somebody uses it: in the system's chromium without its window, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    ViewportSize,
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
    # What goes to another host fails, and that is told: to be told of every request takes a tenth of a page.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 800}

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

    def __init__(self, browser: Browser, server: Server, viewport: ViewportSize = WIDE, **options: Any) -> None:
        """``options`` are those of a browser context, such as ``java_script_enabled``."""
        self.troubles: list[str] = []
        self.server = server
        self.context: BrowserContext = browser.new_context(base_url=server.url, viewport=viewport, **options)
        self.context.set_default_timeout(LIMIT * 1000)
        self.context.on("console", self._read_console)
        self.context.on("weberror", lambda error: self.troubles.append(f"exception: {error.error}"))
        self.context.on("requestfailed", self._look_at_failure)
        self.page = self._tab = self.context.new_page()
        self._viewport = viewport

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.context.close()

    @contextmanager
    def visit(self) -> Iterator[Self]:
        """For one test: go on in the same tab, which is as a new one again afterwards; the cookies and the cache stay.

        A new one takes a fifth of what a test takes. Who sets more on a page than its size and its colours wants a
        :meth:`new_tab`, though.
        """
        self.troubles.clear()
        try:
            yield self
        finally:
            for page in self.context.pages:
                if page is not self._tab:
                    page.close()
            self.page = self._tab
            # Nothing is drawn there, and nothing runs on.
            self.page.goto("/health")
            self.page.evaluate("sessionStorage.clear()")
            self.page.set_viewport_size(self._viewport)
            self.page.emulate_media(color_scheme="light")

    def new_tab(self) -> Page:
        """Go on in a tab of the test's own."""
        self.page = self.context.new_page()
        return self.page

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
        """Replace what a field shows, as a clipboard does: a browser cuts that to ``maxlength``, unlike ``fill``."""
        self.page.focus(selector)
        self.page.keyboard.press("Control+a")
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

    def open_config(self, mac_address: str) -> Page:
        """Open the page where it is changed at its address; the way there by its list takes as much as that page."""
        sql = f"SELECT id FROM devices_deviceconfig WHERE mac_address = '{mac_address}'"  # noqa: S608
        [(key,)] = self.server.query(sql)
        return self.open(f"devices/deviceconfig/{key}/change/")

    def rows(self) -> Locator:
        return self.page.locator("#result_list tbody tr")

    def _read_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"{message.type}: {message.text}")

    def _look_at_failure(self, request: Request) -> None:
        # Going on to the next page ends what is still being loaded.
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"failed: {request.url} ({request.failure})")
