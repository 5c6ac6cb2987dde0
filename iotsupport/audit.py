"""A line of the log for each change: who did what, by which way and from where. Written once it is committed.

No line holds what was saved, nor a secret: of a reason it says how long it is.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from django.db import transaction

from iotsupport.editing import origins
from iotsupport.monitoring.logs import FIELDS, shorten
from iotsupport.serving.clients import client_address

logger = logging.getLogger(__name__)

# A name of a file is the longest, with 200 bytes.
VALUE_CHARS = 200
PLAIN = re.compile(r"[\w.,:@/+-]+", re.ASCII)

# What simple-history notes of a version.
ACTIONS = {"+": "created", "~": "changed", "-": "deleted"}


def tell(action: str, model: str, name: str | None = None, *, using: str | None = None, **facts: Any) -> None:
    """Have a change told when the transaction is committed; at once where there is none.

    ``action`` is what was done, as ``deleted``; ``model`` is what kind of thing it was done to, as
    ``devices.deviceconfig``. ``facts`` are texts and numbers; None is left out.
    """
    origin = origins.current()
    person, request = origin.person, origin.request
    fields = {
        "action": action,
        "model": model,
        "name": name,
        **facts,
        "who": None if person is None else person.get_username(),
        "way": origin.way.value,
        "token": origin.token,
        "part_of": origin.part_of,
        "address": None if request is None else client_address(request),
        "reason_chars": len(origin.reason) or None,
    }
    transaction.on_commit(lambda: _write(fields), using, robust=True)


def _write(fields: dict[str, Any]) -> None:
    said = {
        name: shorten(value, VALUE_CHARS) if isinstance(value, str) else value
        for name, value in fields.items()
        if value is not None
    }
    logger.info("%s", " ".join(f"{name}={_quoted(value)}" for name, value in said.items()), extra={FIELDS: said})


def _quoted(value: str | int) -> str:
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)
