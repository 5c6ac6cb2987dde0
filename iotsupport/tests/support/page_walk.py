"""All pages of the admin, found by themselves: by its URL patterns, by links, and by every form that is sent.

Whatever registers a model, or adds a page to the admin, has it walked without being listed anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urldefrag, urlencode, urljoin, urlsplit

from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import quote
from django.contrib.contenttypes.models import ContentType
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import models, transaction
from django.test import Client
from django.urls import NoReverseMatch, Resolver404, get_resolver, resolve, reverse
from django.urls.resolvers import URLPattern, URLResolver

TEXT_INPUTS = {"", "text", "search", "email", "url", "hidden", "password"}
# Whoever sends one of these changed is refused before any page is made.
KEPT = {"csrfmiddlewaretoken", "action", "_selected_action", "select_across", "post"}


@dataclass
class Form:
    """One form of a page, as a browser would send it."""

    method: str
    action: str
    values: dict[str, list[str]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    actions: list[str] = field(default_factory=list)
    # Name, value, and where it sends the form to.
    buttons: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        self.values.setdefault(name, []).append(value)


class Page(HTMLParser):
    """What of a page leads on. ``tags`` are all start tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.links: list[str] = []
        self.forms: list[Form] = []
        self._named: dict[str, Form] = {}
        self._open: Form | None = None
        self._select: tuple[Form, str] | None = None
        self._textarea: tuple[Form, str] | None = None
        self._text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag == "form":
            self._open = Form(attributes.get("method", "get").lower(), attributes.get("action", ""))
            self.forms.append(self._open)
            self._named[attributes.get("id", "")] = self._open
        elif tag in {"input", "button", "select", "textarea"}:
            form = self._named.get(attributes["form"]) if "form" in attributes else self._open
            if form is not None and "disabled" not in attributes:
                self._read_control(form, tag, attributes)
        elif tag == "option" and self._select:
            form, name = self._select
            if name == "action":
                form.actions.append(attributes.get("value", ""))
            elif "selected" in attributes:
                form.add(name, attributes.get("value", ""))

    def _read_control(self, form: Form, tag: str, attributes: dict[str, str]) -> None:
        name, value = attributes.get("name", ""), attributes.get("value", "")
        kind = attributes.get("type", "submit" if tag == "button" else "")
        if tag == "select":
            self._select = form, name
        elif tag == "textarea":
            self._textarea, self._text = (form, name), ""
        elif kind == "submit":
            form.buttons.append((name, value, attributes.get("formaction", "")))
        elif kind == "file":
            form.files.add(name)
        elif kind in TEXT_INPUTS and name:
            form.add(name, value)
            form.texts.add(name)
        elif kind in {"checkbox", "radio"} and ("checked" in attributes or name == "_selected_action"):
            form.add(name, value or "on")

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        elif tag == "select":
            self._select = None
        elif tag == "textarea" and self._textarea:
            form, name = self._textarea
            form.add(name, self._text.removeprefix("\n"))
            form.texts.add(name)
            self._textarea = None


def patterns() -> list[tuple[str, list[str]]]:
    """Name and arguments of every address of the admin."""
    resolver = next(part for part in get_resolver().url_patterns if getattr(part, "app_name", "") == "admin")
    return [(name, arguments) for name, arguments in _flatten(resolver) if name]


def _flatten(resolver: Any) -> Iterator[tuple[str, list[str]]]:
    for part in resolver.url_patterns:
        if isinstance(part, URLResolver):
            yield from _flatten(part)
        elif isinstance(part, URLPattern):
            names = list(part.pattern.converters) or re.findall(r"\?P<(\w+)>", part.pattern.regex.pattern)
            groups = part.pattern.regex.groups
            yield part.name or "", names if len(names) == groups else [f"{number}" for number in range(groups)]


def addresses(rows: int | None = None) -> list[str]:
    """Every address of the admin, for each row of its models and each of their versions, or for so many of them.

    A pattern whose arguments cannot be told is an error: teach :func:`_fill` what to put there.
    """
    found, unknown = set(), []
    for name, arguments in patterns():
        ways = list(_fill(name, arguments))
        urls = [url for way in ways if (url := _reverse(name, way)) is not None]
        if not urls:
            unknown.append(f"{name}({', '.join(arguments)})")
        found.update(urls[:rows])
    assert not unknown, f"What stands in these addresses, or where are their rows? {unknown}"
    return sorted(found)


def _reverse(name: str, arguments: list[Any]) -> str | None:
    try:
        return reverse(f"admin:{name}", args=arguments)
    except NoReverseMatch:
        return None


def _fill(name: str, arguments: list[str]) -> Iterator[list[Any]]:
    if not arguments:
        yield []
    elif arguments == ["app_label"]:
        yield from ([model._meta.app_label] for model in registered())
    elif arguments == ["content_type_id", "object_id"]:
        for model in registered():
            for pk in model._base_manager.values_list("pk", flat=True):
                yield [ContentType.objects.get_for_model(model).pk, pk]
    else:
        for model in registered():
            if name.startswith(f"{model._meta.app_label}_{model._meta.model_name}_"):
                is_by_name = arguments[0] == "name"
                yield from _fill_by_name(model, arguments) if is_by_name else _fill_of_model(model, len(arguments))


def _fill_by_name(model: type[models.Model], arguments: list[str]) -> Iterator[list[Any]]:
    """The names that rows have and had; and numbers of versions, of which each has one at least."""
    history, field = history_of(model), model.name_field  # type: ignore[attr-defined]
    assert history is not None
    for name in set(history._base_manager.values_list(field, flat=True)):
        yield [name, *["1" for _ in arguments[1:]]]


def _fill_of_model(model: type[models.Model], count: int) -> Iterator[list[Any]]:
    history = history_of(model)
    if count == 1:
        pks = set(model._base_manager.values_list("pk", flat=True))
        if history is not None:  # pages of deleted rows, too
            pks |= set(history._base_manager.values_list(model._meta.pk.attname, flat=True))
        yield from ([quote(pk)] for pk in pks)
    elif count == 2 and history is not None:
        yield from map(list, history._base_manager.values_list(model._meta.pk.attname, "pk"))


def registered() -> list[type[models.Model]]:
    return list(admin.site._registry)


def lists() -> Iterator[tuple[str, str]]:
    """Every list's address, and the numbers of all its columns, as a list that is sorted by all names them."""
    for model, model_admin in admin.site._registry.items():
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        yield url, ".".join(str(number) for number, _ in enumerate(model_admin.list_display, 1))


def view_permission(model: type[models.Model]) -> str:
    """What somebody needs who may look at the pages of a model, and do nothing else."""
    if not model._meta.default_permissions:  # as waiting boards, which are seen with the configurations
        return {"devices": "devices.view_deviceconfig", "assets": "assets.view_asset"}[model._meta.app_label]
    return f"{model._meta.app_label}.view_{model._meta.model_name}"


def history_of(model: type[models.Model]) -> type[models.Model] | None:
    """The model of its versions, where it has some."""
    manager = getattr(model._meta, "simple_history_manager_attribute", None)
    return getattr(model, manager).model if manager else None


def _parameters(url: str) -> list[str]:
    return list(parse_qs(urlsplit(url).query, keep_blank_values=True))


class Walk:
    """Visits all pages that one person finds, and changes nothing: each form is sent in a transaction of its own.

    ``check`` is called with the address and the parsed page of every answer that is HTML. ``text`` is typed into every
    field, and ``filename`` is what a file is called that is sent. ``once`` visits each kind of page for one row alone,
    and a list without its filters: a database is asked the same for all rows.
    """

    def __init__(
        self, client: Client, check: Callable[[str, Any, Page], None], *, text: str, filename: str, once: bool = False
    ) -> None:
        self.client, self.check, self.text, self.filename, self.once = client, check, text, filename, once
        # Addresses with the names of their parameters: one value of each filter shows what the others do.
        self.visited: set[str] = set()
        self._sent: set[tuple[str, ...]] = set()

    def start(self, urls: list[str]) -> None:
        """Go through these, and whatever they lead to."""
        waiting = list(urls)
        while waiting:
            url = urldefrag(waiting.pop()).url
            parameters = sorted(_parameters(url))
            here = f"{urlsplit(url).path}?{'&'.join(parameters)}"
            kind = self._place(url) if self.once else here
            if not self.visited.isdisjoint({here, kind}):
                continue
            response: Any = self.client.get(url)
            # Where it has no such page, another row may have it.
            self.visited |= {here, kind} if response.status_code == HTTPStatus.OK else {here}
            page = self._read(url, response)
            if page is None:
                continue
            waiting += [target for link in page.links if self._leads_on(url, target := urljoin(url, link))]
            if IS_POPUP_VAR in parameters or not parameters:
                self._send_all(url, page)

    def _place(self, url: str) -> str:
        """What has the same is one page to this walk."""
        path = urlsplit(url).path
        try:
            return resolve(path).view_name if self.once else path
        except Resolver404:
            return path

    def _leads_on(self, url: str, target: str) -> bool:
        """Whether to go there, too: not to other hosts, to combinations of filters, or to lists in another order."""
        query = _parameters(target)
        if self.once and query:
            return False
        return bool(re.match("/(?!/)", target)) and (not query or not urlsplit(url).query) and "o" not in query

    def _read(self, url: str, response: Any) -> Page | None:
        assert response.status_code < 500, f"{url} answers {response.status_code}"
        if response.streaming or not response.get("Content-Type", "").startswith("text/html"):
            return None
        page = Page(response.content.decode())
        self.check(url, response, page)
        return page

    def _send_all(self, url: str, page: Page, depth: int = 0) -> None:
        for form in page.forms:
            for button in form.buttons:
                for action in form.actions or [""]:
                    self._send(url, form, button, action, typed=False, depth=depth)
            if form.buttons and (form.texts - KEPT or form.files):
                self._send(url, form, form.buttons[0], "", typed=True, depth=depth)

    def _send(
        self, url: str, form: Form, button: tuple[str, str, str], action: str, *, typed: bool, depth: int
    ) -> None:
        name, value, formaction = button
        target = urljoin(url, formaction or form.action)
        # Of a page that asks whether one is sure, the action is among its values.
        key = (form.method, self._place(target), name, action, str(typed), *form.values.get("action", []))
        if key in self._sent or depth > 3:
            return
        self._sent.add(key)
        data: dict[str, Any] = {**form.values}
        if name:
            data[name] = [value]
        if action:
            data["action"] = [action]
        if typed:
            data |= {text: [self.text] for text in form.texts - KEPT}
            data |= {file: SimpleUploadedFile(self.filename, b"x") for file in form.files}
        if form.method != "post":
            target = f"{urlsplit(target).path}?{urlencode(data, doseq=True)}"
            self._read(target, self.client.get(target))
            return
        with transaction.atomic():
            client = Client(raise_request_exception=False)
            client.cookies.load({key: morsel.value for key, morsel in self.client.cookies.items()})
            answer = client.post(target, data, follow=True)
            last = answer.redirect_chain[-1][0] if answer.redirect_chain else target
            page = self._read(last, answer)
            if page is not None:
                client, self.client = self.client, client
                self._send_all(last, page, depth + 1)
                self.client = client
            transaction.set_rollback(True)
