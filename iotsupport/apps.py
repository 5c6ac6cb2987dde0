from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.db import connection
from django.db.models.signals import post_migrate

import iotsupport.monitoring.metrics_files  # noqa: F401 - before an app makes a metric
from iotsupport.database import is_shared, sqlite
from iotsupport.serving import clients


class IotSupportConfig(AppConfig):
    name = "iotsupport"
    verbose_name = "IoT Support"

    def ready(self) -> None:
        from iotsupport import audit_receivers, limits, receivers  # noqa: F401 - connects them
        from iotsupport.accounts.checks import check_single_sign_on
        from iotsupport.backup.metrics import BackupCollector
        from iotsupport.boards.metrics import BoardCollector
        from iotsupport.checks import (
            check_checkins_socket,
            check_credentials,
            check_directories,
            check_dotenv,
            check_environment,
            check_files,
            check_https,
            check_metrics_directory,
            check_plain_http,
            check_secret_key,
        )
        from iotsupport.monitoring.metrics import database_metrics
        from iotsupport.signals import serving
        from iotsupport.state import permission
        from iotsupport.state.checks import (
            DATABASE_TAG,
            check_clock,
            check_database,
            check_file_system,
            check_private,
            check_room,
        )

        for check in [
            check_dotenv,
            check_environment,
            check_directories,
            check_files,
            check_metrics_directory,
            check_checkins_socket,
            check_secret_key,
            check_credentials,
            check_https,
            check_room,
            check_file_system,
            check_clock,
            check_private,
            check_single_sign_on,
        ]:
            checks.register(check, "environment")
        checks.register(check_plain_http, "environment", deploy=True)
        checks.register(check_database, DATABASE_TAG, deploy=True)
        limits.register(limits.LISTS)
        post_migrate.connect(permission.make, sender=self, dispatch_uid="iotsupport.state.permission")
        clients.trust(settings.TRUSTED_PROXIES)
        database_metrics.register(BoardCollector())
        database_metrics.register(BackupCollector())
        serving.connect(keep_database_open, dispatch_uid="iotsupport.keep_database_open")
        serving.connect(wait_for_no_answer_without_end, dispatch_uid="iotsupport.wait_for_no_answer_without_end")
        serving.connect(remove_what_is_over, dispatch_uid="iotsupport.remove_what_is_over")
        serving.connect(tell_nginx_who_may_download, dispatch_uid="iotsupport.tell_nginx_who_may_download")
        serving.connect(listen_to_nginx, dispatch_uid="iotsupport.listen_to_nginx")
        tell_other_nodes()
        serving.connect(follow_other_nodes, dispatch_uid="iotsupport.follow_other_nodes")


def keep_database_open(**kwargs: Any) -> None:
    if not is_shared(connection):
        sqlite.serve()


def wait_for_no_answer_without_end(**kwargs: Any) -> None:
    if is_shared(connection):
        from iotsupport.database.postgresql import base

        base.serve()


def remove_what_is_over(**kwargs: Any) -> None:
    from iotsupport.housekeeping import Housekeeper

    Housekeeper().start()


def tell_nginx_who_may_download(**kwargs: Any) -> None:
    from iotsupport.serving import front_server

    front_server.note_openness()


def listen_to_nginx(**kwargs: Any) -> None:
    from iotsupport.boards.listening import Listener

    Listener().start()


def follow_other_nodes(**kwargs: Any) -> None:
    if is_shared(connection):
        from iotsupport.mirror.nodes import Follower

        Follower().start()


def tell_other_nodes() -> None:
    if is_shared(connection):
        from iotsupport.mirror import nodes  # imports psycopg, which commands on SQLite do without

        nodes.tell_others_of_changes()
