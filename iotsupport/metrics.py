"""``/metrics``: what the workers counted together, and what only the database knows."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django_prometheus.exports import ExportToDjangoView
from prometheus_client import CollectorRegistry, generate_latest

from iotsupport.errors import DATABASE_ERRORS, json_view

logger = logging.getLogger(__name__)

# Collectors of facts: asked once a scrape, by the worker that answers it.
facts = CollectorRegistry()


@json_view
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text. Without the database, its facts are left out and the rest is there."""
    response: HttpResponse = ExportToDjangoView(request)
    try:
        response.content += generate_latest(facts)
    except DATABASE_ERRORS as error:
        logger.warning("The metrics that the database knows are missing: %s", error)
    return response
