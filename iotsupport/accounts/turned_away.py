"""The page for somebody who came from a single sign-on, and is not signed in here: it says why."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers


def page(request: HttpRequest, sentence: str, *, status: int = 403, again: str = "") -> HttpResponse:
    """Answer with a sentence; ``again`` is the address at which a new try begins."""
    context = {**admin.site.each_context(request), "sentence": sentence, "again": again}
    response = render(request, "admin/turned_away.html", context, status=status)
    add_never_cache_headers(response)
    if status == 503:
        response["Retry-After"] = "15"
    return response
