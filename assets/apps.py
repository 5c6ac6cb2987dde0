from django.apps import AppConfig


class AssetsConfig(AppConfig):
    name = "assets"
    verbose_name = "Assets"

    def ready(self) -> None:
        from assets import first_page, receivers  # noqa: F401 - connects them
        from assets.limits import LARGE_BODIES
        from assets.panels import page_of
        from assets.pending import over
        from assets.versions import find_versions
        from assets.views import DOWNLOADS
        from iotsupport import housekeeping, limits
        from iotsupport.boards import firmware
        from iotsupport.first_page import parts
        from iotsupport.serving import downloads

        downloads.register(DOWNLOADS)
        limits.register(*LARGE_BODIES)
        housekeeping.registered.append(over)
        firmware.register(find_versions, page_of)
        parts.numbers.append(first_page.numbers)
