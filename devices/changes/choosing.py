"""Which configurations a change is about: those that were named, or all that a search and filters find now."""

from __future__ import annotations

from copy import copy
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import SuspiciousOperation, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict

from devices.fields import normalise_mac_address
from devices.filters import of_boards
from devices.models import DeviceConfig
from devices.types.finding import find_type
from iotsupport.boards.models import CONFIGURED, Board
from iotsupport.editing.lookups import MOST_WORDS


class Chosen(NamedTuple):
    mac_addresses: list[str]
    words: str = ""
    """What was searched for; empty where they were named."""


def named(mac_addresses: list[str]) -> Chosen:
    """Raises ``ValidationError`` for what is no MAC address."""
    return Chosen([normalise_mac_address(each) for each in mac_addresses])


def listed(request: HttpRequest, query: str) -> Chosen:
    """All that the admin's list shows where its address has this query string, on whatever page."""
    asked = copy(request)
    asked.GET = QueryDict(query)
    try:
        found: Any = admin.site.get_model_admin(DeviceConfig).get_changelist_instance(asked)
    except (IncorrectLookupParameters, SuspiciousOperation) as error:
        message = "The list's search or filters cannot be understood any more. Go back to it, and choose anew."
        raise ValidationError(message, code="INVALID_FILTER") from error
    words = [f"“{found.query}”"] if found.query else []
    words += [f"{chosen.title.lower()}: {chosen.choice}" for chosen in found.chosen_filters]
    return Chosen(_addresses(found.queryset), ", ".join(words) or "all")


def found(request: HttpRequest, where: dict[str, Any]) -> Chosen:
    """All for which the list's search finds what is under ``search``, and whose board is in the ``state``.

    Raises ``ValidationError`` for what cannot be asked for, and 400 for a type that is not there.
    """
    for name, value in where.items():
        if not isinstance(value, str):
            raise ValidationError(f'"{name}" must be text.', code="INVALID_FILTER")
    configs, search, state = DeviceConfig.objects.all(), where.get("search", ""), where.get("state")
    if len(search.split()) > MOST_WORDS:
        raise ValidationError(f"Search for at most {MOST_WORDS} words.", code="INVALID_FILTER")
    if state is not None:
        if state not in CONFIGURED:
            known = " or ".join(each.value for each in CONFIGURED)
            raise ValidationError(f"state is {state[:40]!a}, but it must be {known}.", code="INVALID_FILTER")
        configs = of_boards(configs, Board.objects.filter(state=state))
    if "type" in where:
        configs = configs.filter(type=find_type(where["type"]))
    configs, _ = admin.site.get_model_admin(DeviceConfig).get_search_results(request, configs, search)
    words = [f"“{search}”"] if search else []
    words += [f"{name}: {where[name]}" for name in ["state", "type"] if name in where]
    return Chosen(_addresses(configs), ", ".join(words) or "all")


def _addresses(configs: QuerySet[DeviceConfig]) -> list[str]:
    return list(configs.order_by("mac_address").values_list("mac_address", flat=True))
