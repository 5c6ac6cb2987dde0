"""The static files that are served: what the pages need is among them, and little else; where Django has them."""

from __future__ import annotations

import io
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage, staticfiles_storage
from django.core.management import call_command
from django.http import HttpResponse
from django.test import RequestFactory

from devices.forms import DeviceConfigForm
from iotsupport.static_files import StaticFilesMiddleware


@pytest.fixture
def served() -> set[str]:
    return {path for finder in finders.get_finders() for path, _ in finder.list(None)}


def test_they_are_few(served: set[str]) -> None:
    """Each worker looks at all of them when it is asked for one."""
    assert len(served) < 250


def test_what_the_editor_loads_is_among_them(served: set[str]) -> None:
    media = DeviceConfigForm().media
    named = {*media._js, *(path for paths in media._css.values() for path in paths)}  # type: ignore[attr-defined]
    # Loaded by the editor itself: what checks while one types, and the box in which one searches.
    loaded = {"worker-json.js", "ext-searchbox.js"}
    assert {path for path in named if "//" not in path} | {f"django_ace/ace/{name}" for name in loaded} <= served


@pytest.mark.parametrize(
    "path", ["admin/css/base.css", "admin/js/core.js", "iotsupport/admin.css", "ninja/favicon.png"]
)
def test_what_others_need_is_among_them(path: str, served: set[str]) -> None:
    assert path in served


@pytest.mark.parametrize("name", ["mode-php.js", "theme-monokai.js", "worker-php.js", "css/theme/monokai.css"])
def test_the_editor_for_other_languages_is_left_out(name: str, served: set[str]) -> None:
    path = f"django_ace/ace/{name}"
    assert path not in served
    assert finders.find(path), "it is there no more: the finder leaves out what does not exist"


def test_collecting_asks_the_same_finders() -> None:
    output = io.StringIO()
    call_command("collectstatic", dry_run=True, interactive=False, stdout=output)
    assert re.search(r"^[12]\d\d static files copied", output.getvalue(), re.MULTILINE)


@pytest.mark.parametrize("name", ["admin/img/icon-yes.svg", "a b&c/\N{SNOWMAN}.css", "a.js?b#c"])
def test_a_static_file_is_where_django_has_it(name: str) -> None:
    url = staticfiles_storage.url(name)

    assert url == StaticFilesStorage().url(name)
    # Made once.
    assert staticfiles_storage.url(name) is url


def test_they_are_looked_at_once_and_not_before_one_is_asked_for(
    rf: RequestFactory, settings: Any, tmp_path: Path
) -> None:
    settings.STATIC_ROOT = str(tmp_path)
    middleware = StaticFilesMiddleware(lambda request: HttpResponse(b"a page"))
    (tmp_path / "early.css").write_text("early")

    def ask(path: str) -> bytes:
        with closing(middleware(rf.get(path))) as response:
            return b"".join(response)

    assert ask("/admin/") == b"a page"
    (tmp_path / "later.css").write_text("later")
    assert ask("/static/later.css") == b"later"
    (tmp_path / "last.css").write_text("last")
    assert ask("/static/last.css") == b"a page"
    assert ask("/static/early.css") == b"early"
