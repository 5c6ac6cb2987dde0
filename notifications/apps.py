from django.apps import AppConfig
from django.core import checks


class NotificationsConfig(AppConfig):
    name = "notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        from iotsupport.first_page import parts
        from iotsupport.monitoring import health
        from iotsupport.monitoring.metrics import database_metrics
        from iotsupport.state import findings
        from notifications import first_page, receivers, state  # noqa: F401 - connects them
        from notifications.checks import (
            check_mqtt_ca_file,
            check_mqtt_certificate,
            check_mqtt_tls,
            check_mqtt_url,
            check_mqtt_username,
        )
        from notifications.health import report_old_protocol, report_owed, report_trouble
        from notifications.metrics import AnnouncementCollector
        from notifications.publisher import publisher

        for check in [
            check_mqtt_url,
            check_mqtt_ca_file,
            check_mqtt_certificate,
            check_mqtt_tls,
            check_mqtt_username,
        ]:
            checks.register(check, "notifications")
        database_metrics.register(AnnouncementCollector())
        health.report_also("broker", publisher.state)
        health.report_also("broker_trouble", report_trouble, only_where_any=True)
        health.report_also("mqtt_version", report_old_protocol, only_where_any=True)
        health.report_also("owed", report_owed, asks_database=True)
        parts.numbers.append(first_page.numbers)
        findings.parts.append(findings.Part("broker", "Broker and announcements", state.look))
        publisher.start()
