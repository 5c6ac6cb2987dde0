"""What everybody may GET, whatever the Host header says: no session, no cookie."""

from django.urls import URLPattern, URLResolver, include, path

from iotsupport.monitoring import health, metrics

# The same under /api, which existing scripts and firmware call.
_paths: list[URLPattern | URLResolver] = [
    path("health", health.health, name="health"),
    path("metrics", metrics.metrics, name="metrics"),
    path("", include("devices.urls")),
    path("", include("assets.urls")),
]

# The last is what reverse() finds.
urlpatterns = [path("api/", include(_paths)), *_paths]
