"""Lists of the API, of any length: pages of the database, streamed where there are several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from django.http import JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

Row = dict[str, Any]

ReadPage = Callable[[str, int], list[Row]]
"""Returns so many rows at most, by MAC address, of those after one; each says its ``mac_address``."""


def answer_list(name: str, read_page: ReadPage, page_rows: int) -> HttpResponseBase:
    """Answer ``{name: […], "count": …}``; more than ``page_rows`` are streamed."""
    pages = _pages(read_page, page_rows)
    first = next(pages)
    if len(first) < page_rows:
        return JsonResponse({name: first, "count": len(first)})
    return StreamingHttpResponse(_stream(name, first, pages), content_type="application/json")


def _pages(read_page: ReadPage, page_rows: int) -> Iterator[list[Row]]:
    """Yield all rows in lists.

    Each is a query of its own: a reader that is slow to take the answer keeps no transaction open meanwhile.
    """
    last = ""
    while True:
        page = read_page(last, page_rows)
        yield page
        if len(page) < page_rows:
            return
        last = page[-1]["mac_address"]


def _stream(name: str, first: list[Row], pages: Iterator[list[Row]]) -> Iterator[str]:
    count = 0
    yield f'{{"{name}": ['
    for page in chain([first], pages):
        if page:
            yield f"{', ' if count else ''}{json.dumps(page)[1:-1]}"
        count += len(page)
    yield f'], "count": {count}}}'
