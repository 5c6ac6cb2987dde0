"""What is owed is handed out, and marked by the broker's word: whatever broker, database and disk do."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.bulk import bulk_change
from iotsupport.mirror.files import MirrorBehindError, mirror_storage
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications import messenger as messenger_module
from notifications import models, pace, refusals
from notifications import publisher as publisher_module
from notifications import relay as relay_module
from notifications.broker import Broker
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, TOPICS
from notifications.messenger import Messenger
from notifications.models import Announcement
from notifications.publisher import publisher
from notifications.relay import Relay
from notifications.tests.conftest import announcement_of, save_config, upload_asset, wait_until_announced
from notifications.tests.scripted_broker import NOT_AUTHORIZED, QUOTA_EXCEEDED, ScriptedBroker

pytestmark = pytest.mark.usefixtures("transactional_db")

sqlite_only = pytest.mark.sqlite("It is about SQLite's one lock.")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look around more often, and pause for less."""
    monkeypatch.setattr(relay_module, "REGULAR_SECONDS", 0.1)
    monkeypatch.setattr(pace, "SHORTEST_PAUSE", timedelta(seconds=0.1))


class Statements:
    """Stands between the relay and its database."""

    def __init__(self) -> None:
        self.around: Callable[[str, Any, Callable[[], Any]], Any] = lambda sql, params, execute: execute()
        """Called with each statement, with its parameters, and with what executes it."""

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return self.around(sql, params, lambda: execute(sql, params, many, context))


@pytest.fixture
def statements():
    statements = Statements()

    def watch(connection: Any, **kwargs: Any) -> None:
        # A connection that is opened again keeps its wrappers.
        if threading.current_thread().name == "relay" and statements not in connection.execute_wrappers:
            connection.execute_wrappers.append(statements)

    connection_created.connect(watch)
    yield statements
    connection_created.disconnect(watch)


@pytest.fixture
def broker(scripted_broker, statements, start):
    """A broker, and the publisher connected to it."""
    start(scripted_broker.url)
    return scripted_broker


@pytest.fixture
def impatient_relay(monkeypatch):
    """New connections to the database wait for a lock only a moment; this thread goes on with its own connection."""
    connection.ensure_connection()
    options = connections.settings["default"]["OPTIONS"]
    monkeypatch.setitem(options, "timeout", 0.05)


@contextmanager
def locked_database():
    """Somebody writes all the time."""
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, timeout=LIMIT)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.rollback()
        other.close()


def name(number):
    return f"aa-bb-cc-dd-ee-{number:02x}.json"


def note(number, **values):
    """Change what is noted of a configuration's row."""
    Announcement.objects.filter(filename=name(number)).update(**values)


def leave(*numbers):
    """As another process does that ended before it could announce them."""
    for number in numbers:
        save_config(number)  # off: nothing is recorded
        Announcement.objects.record(CONFIGS_TOPIC, name(number), is_bulk=False)


def announced_at():
    """When: the same for all that were marked as announced together."""
    return set(Announcement.objects.values_list("announced_at", flat=True))


# --- Marked by the broker's word -----------------------------------------------------------------------------


@pytest.mark.both_databases
def test_is_owed_until_it_is_acknowledged(broker):
    broker.hold()
    config = save_config(1)
    broker.wait_for_heard(name(1))
    sent = announcement_of(config)
    broker.release()
    wait_until_announced()

    assert sent.owed_since is not None
    assert sent.announced_at is None
    assert announcement_of(config).announced_at is not None


@pytest.mark.both_databases
def test_the_acknowledgement_of_an_earlier_version_marks_nothing(broker):
    broker.hold()
    save_config(1, name="earlier")
    broker.wait_for_heard(name(1))
    with transaction.atomic(), bulk_change():
        config = save_config(1, name="later")
        note(1, retry_at=timezone.now() + pace.LONGEST_PAUSE)  # before anybody can announce it
    broker.release()
    save_config(2)
    eventually(lambda: Announcement.objects.get(filename=name(2)).owed_since is None)

    assert announcement_of(config).owed_since is not None
    note(1, retry_at=None)
    wait_until_announced()


@pytest.fixture
def messenger(scripted_broker):
    """One without a publisher, connected to the broker."""
    messenger = Messenger(Broker.parse(scripted_broker.url), rate=100)
    messenger.start()
    eventually(lambda: messenger.is_connected)
    yield messenger
    messenger.close()


@pytest.fixture
def relay(messenger):
    relay = Relay(messenger)
    yield relay
    relay.close(LIMIT)


@pytest.mark.both_databases
def test_outcomes_that_follow_others_are_noted_together_until_somebody_waits_for_what_is_owed(
    messenger, relay, scripted_broker, monkeypatch
):
    monkeypatch.setattr(relay_module, "BATCH_SECONDS", 0.0)
    monkeypatch.setattr(relay_module, "BUSY_BATCH_SECONDS", 10 * LIMIT)
    scripted_broker.hold()
    leave(1, 2, 3)
    relay.wake()
    scripted_broker.wait_for_heard(name(1), name(2), name(3))
    scripted_broker.release()
    eventually(lambda: messenger.is_idle)
    noted = announced_at()

    relay.wake()
    wait_until_announced()

    assert noted == {None}
    assert len(announced_at()) == 1


@pytest.mark.both_databases
def test_a_version_saved_while_the_earlier_one_is_in_flight_is_announced_too(broker):
    broker.hold()
    save_config(1, name="earlier")
    broker.wait_for_heard(name(1))
    save_config(1, name="later")
    broker.release()
    wait_until_announced()

    assert broker.heard == [name(1)] * 2


@pytest.mark.both_databases
def test_many_are_marked_together(broker, monkeypatch):
    """One update for each topic and batch: a save takes its turn in between."""
    monkeypatch.setattr(relay_module, "BATCH_SECONDS", 0.5)
    broker.hold()
    for number in range(20):
        save_config(number)
    broker.wait_for(lambda: len(set(broker.heard)) == 20)
    broker.release()
    wait_until_announced()

    assert Announcement.objects.filter(announced_at__isnull=False).count() == 20
    assert len(announced_at()) <= 3


@pytest.mark.both_databases
def test_a_refusal_is_kept_with_its_reason_and_tried_again(broker):
    broker.refused[name(1)] = QUOTA_EXCEEDED
    config = save_config(1)
    eventually(lambda: announcement_of(config).tries >= 2)
    refused = announcement_of(config)
    broker.refused.clear()
    wait_until_announced()

    assert refused.last_error == "Quota exceeded"
    assert refused.owed_since is not None
    assert (announcement_of(config).tries, announcement_of(config).last_error) == (0, "")
    assert broker.connections == 1


@pytest.mark.both_databases
def test_a_refused_file_waits_longer_each_time(broker, monkeypatch):
    monkeypatch.setattr(pace, "SHORTEST_PAUSE", timedelta(hours=1))
    monkeypatch.setattr(pace, "LONGEST_PAUSE", timedelta(hours=3))
    broker.refused[name(1)] = QUOTA_EXCEEDED
    config, pauses = save_config(1), []
    for tries in [1, 2, 3]:
        eventually(lambda tries=tries: announcement_of(config).tries == tries)  # type: ignore[misc]
        pauses.append(round((announcement_of(config).retry_at - timezone.now()).total_seconds() / 3600))
        note(1, retry_at=None)
        publisher.wake()

    assert pauses == [1, 2, 3]


@pytest.mark.both_databases
def test_one_bad_row_holds_up_nobody(broker, monkeypatch):
    """Neither one that is refused, nor one that is never acknowledged, nor one that ends the connection."""
    monkeypatch.setattr(messenger_module, "ACKNOWLEDGE_TIMEOUT", 2.0)
    monkeypatch.setattr(messenger_module, "ISOLATION_SECONDS", 0.1)
    monkeypatch.setattr(messenger_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(pace, "SHORTEST_PAUSE", timedelta(seconds=1))
    monkeypatch.setattr(pace, "LONGEST_PAUSE", timedelta(seconds=1))
    broker.refused[name(1)], bad = QUOTA_EXCEEDED, {name(1), name(2), name(3)}
    broker.ignored.add(name(2))
    broker.fatal.add(name(3))

    with bulk_change():
        for number in range(1, 60):
            save_config(number)

    eventually(lambda: set(Announcement.objects.owed().values_list("filename", flat=True)) == bad)
    eventually(lambda: Announcement.objects.get(filename=name(1)).last_error)
    assert announcement_of(save_config(1)).last_error
    broker.refused.clear()
    broker.ignored.clear()
    broker.fatal.clear()
    wait_until_announced()


def test_a_refused_topic_shows_the_reason_and_the_other_goes_out(broker, monkeypatch):
    monkeypatch.setattr(refusals, "LONGEST_SUSPENSION", 0.5)
    broker.refused[ASSETS_TOPIC] = NOT_AUTHORIZED
    with bulk_change():
        for number in range(10):
            upload_asset(f"{number}.bin")
    save_config(1)
    eventually(lambda: Announcement.objects.owed().filter(last_error="Not authorized").count() == 10)
    config = save_config(2)
    eventually(lambda: announcement_of(config).owed_since is None)

    assert set(Announcement.objects.owed().values_list("topic", flat=True)) == {ASSETS_TOPIC}
    broker.refused.clear()
    wait_until_announced()


@pytest.mark.both_databases
def test_a_save_on_a_refused_topic_tells_the_reason_at_once(broker, monkeypatch):
    monkeypatch.setattr(pace, "SHORTEST_PAUSE", pace.LONGEST_PAUSE)  # until the topic is tried again
    broker.refused[ASSETS_TOPIC] = NOT_AUTHORIZED
    for number in range(3):
        upload_asset(f"{number}.bin")
    eventually(lambda: publisher.suspension(ASSETS_TOPIC))
    asset = upload_asset("another.bin")

    assert announcement_of(asset).last_error == "Not authorized"
    assert len(broker.heard) == 3
    broker.refused.clear()


# --- Sent after trouble ------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_sends_what_others_left_when_it_starts(scripted_broker, start):
    leave(1)
    start(scripted_broker.url)
    wait_until_announced()

    assert scripted_broker.heard == [name(1)]


def test_sends_what_others_left_within_its_regular_interval(broker):
    save_config(1)
    wait_until_announced()
    Announcement.objects.record(CONFIGS_TOPIC, name(1), is_bulk=False)
    wait_until_announced()

    assert broker.heard == [name(1)] * 2


def test_sends_nothing_when_it_starts_and_nothing_is_owed(broker, scripted_broker, start):
    save_config(1)
    wait_until_announced()
    publisher.stop()
    start(scripted_broker.url)
    save_config(2)
    wait_until_announced()

    assert broker.heard == [name(1), name(2)]


def test_a_hundred_saves_while_the_broker_is_away_are_one_message(broker):
    broker.connack = NOT_AUTHORIZED
    broker.drop()
    eventually(lambda: publisher.state() == "disconnected")
    for number in range(100):
        save_config(1, name=f"lamp {number}")
    rows = Announcement.objects.count()
    broker.connack = 0
    wait_until_announced()

    assert rows == 1
    assert broker.heard == [name(1)]


def test_the_end_of_a_connection_is_no_reason_to_pause(broker):
    broker.hold()
    config = save_config(1)
    for times in [1, 2, 3]:
        broker.wait_for_heard(*[name(1)] * times)
        broker.drop()
        eventually(lambda times=times: announcement_of(config).tries == times)  # type: ignore[misc]
        assert announcement_of(config).retry_at is None
    broker.release()
    wait_until_announced()


@pytest.mark.both_databases
def test_leaves_alone_what_a_living_process_claimed_and_takes_over_what_a_dead_one_did(broker, monkeypatch):
    monkeypatch.setattr(models, "LEASE", timedelta(seconds=10 * LIMIT))
    for number in [1, 2]:
        save_config(number)
    wait_until_announced()
    alive = Announcement.objects.record(CONFIGS_TOPIC, name(1), is_bulk=False, claimed_by="alive")
    Announcement.objects.record(CONFIGS_TOPIC, name(2), is_bulk=False, claimed_by="dead")
    note(2, claimed_until=timezone.now())
    broker.wait_for_heard(name(2), name(2))
    save_config(3)  # it comes after what was due
    broker.wait_for_heard(name(3))

    assert broker.heard.count(name(1)) == 1
    Announcement.objects.release("alive", [alive])
    wait_until_announced()


@pytest.mark.both_databases
def test_keeps_its_claim_on_what_it_holds(scripted_broker, start, monkeypatch):
    monkeypatch.setattr(messenger_module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(models, "LEASE", timedelta(seconds=10 * LIMIT))  # it does not lapse meanwhile
    start(scripted_broker.url)
    scripted_broker.hold()
    config = save_config(1)
    scripted_broker.wait_for_heard(name(1))
    first = announcement_of(config).claimed_until
    eventually(lambda: announcement_of(config).claimed_until > first)

    assert Announcement.objects.claim("another", TOPICS, 10) == []
    assert scripted_broker.heard == [name(1)]
    scripted_broker.release()
    wait_until_announced()


@pytest.mark.both_databases
def test_does_not_send_again_what_it_holds_although_its_claim_lapsed(scripted_broker, start, monkeypatch):
    monkeypatch.setattr(messenger_module, "RENEW_SECONDS", 10 * LIMIT)
    start(scripted_broker.url)
    scripted_broker.hold()
    save_config(1)
    scripted_broker.wait_for_heard(name(1))
    note(1, claimed_until=timezone.now())
    eventually(lambda: Announcement.objects.filter(claimed_until__gt=timezone.now()).exists())
    with bulk_change():  # handed out by the relay, so after the first if that were handed out again
        save_config(2)
    scripted_broker.wait_for_heard(name(2))
    scripted_broker.release()
    wait_until_announced()

    assert scripted_broker.heard == [name(1), name(2)]


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize(("count", "said"), [(1, "1 file is still"), (5, "5 files are still")])
def test_releases_its_claims_when_it_stops_and_says_what_is_left(broker, log, monkeypatch, count, said):
    monkeypatch.setattr(publisher_module, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(publisher_module, "NOTE_SECONDS", LIMIT)
    broker.hold()
    with bulk_change():
        for number in range(count):
            save_config(number)
    broker.wait_for(lambda: broker.heard)
    publisher.stop()

    assert not Announcement.objects.exclude(claimed_by="").exists()
    assert Announcement.objects.owed().count() == count
    assert f"WARNING {said} to be announced: a server does it when it and the broker run" in log.messages


@pytest.mark.both_databases
def test_asks_little_while_nothing_is_owed(broker):
    save_config(1)
    wait_until_announced()
    with CaptureQueriesContext(connection) as captured:
        assert Announcement.objects.claim("here", TOPICS, 100) == []

    assert [query["sql"].split()[0] for query in captured] == ["SELECT"]


# --- A bulk ------------------------------------------------------------------------------------------------------


def test_a_bulk_goes_out_at_the_pace_of_the_settings_and_a_person_ahead_of_it(start):
    with ScriptedBroker(receive_maximum=1) as broker:
        start(broker.url, MQTT_PUBLISH_RATE=20)
        broker.hold()
        with bulk_change():
            for number in range(20):
                save_config(number)
        broker.wait_for(lambda: len(broker.heard) == 1)
        save_config(0xEE)
        released_at = time.monotonic()
        broker.release()
        wait_until_announced()
        seconds = time.monotonic() - released_at

    assert broker.heard.index(name(0xEE)) == 1
    assert len(broker.heard) == 21
    # Twenty since then, and two of them at once.
    assert seconds >= 18 / 20


# --- A fork ------------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_leaves_the_database_alone_while_its_process_is_forked(broker):
    """A lock that SQLite holds in that moment is locked in the child for ever."""
    publisher.pause_for_fork()
    for number in range(50):
        save_config(number)
        broker.wait_for_heard(*map(name, range(number + 1)))
    owed = Announcement.objects.owed().count()
    publisher.resume_after_fork()
    wait_until_announced()

    assert owed == 50


# --- The database in trouble -------------------------------------------------------------------------------------


@sqlite_only
def test_notes_later_what_was_acknowledged_while_the_database_was_locked(impatient_relay, broker, log):
    broker.hold()
    with transaction.atomic():  # or the relay would now and then wait for a lock before all is locked
        configs = [save_config(number) for number in range(3)]
    broker.wait_for(lambda: len(broker.heard) == 3)
    with locked_database():
        broker.release()
        log.wait_for("WARNING The database does not answer; what was announced is noted later: database is locked")
        still_owed = Announcement.objects.owed().count()
    wait_until_announced()

    assert still_owed == len(configs)
    assert len(broker.heard) == 3
    assert len([line for line in log.warnings if "does not answer" in line]) == 1


@pytest.mark.both_databases
@sqlite_only
def test_goes_on_when_a_database_that_was_away_is_back(broker, monkeypatch, log):
    connection.ensure_connection()
    name_of_file = connections.settings["default"]["NAME"]
    monkeypatch.setitem(connections.settings["default"], "NAME", "/nowhere/db.sqlite3")
    publisher.stop()
    publisher.start()  # its relay connects anew; this thread goes on with its own connection
    eventually(lambda: publisher.state() == "connected")
    save_config(1)
    broker.wait_for_heard(name(1))
    log.wait_for("unable to open database file")
    still_owed = Announcement.objects.owed().count()
    monkeypatch.setitem(connections.settings["default"], "NAME", name_of_file)
    wait_until_announced()

    assert still_owed == 1
    assert broker.heard == [name(1)]


@sqlite_only
def test_stops_although_the_database_is_locked(broker):
    broker.hold()
    save_config(1)
    broker.wait_for_heard(name(1))
    with locked_database():
        broker.release()
        publisher.stop()  # it fails unless it ends, within the limit

    assert publisher.state() == "off"


@pytest.mark.both_databases
def test_what_cannot_be_noted_for_another_reason_holds_up_no_other(broker, statements, monkeypatch, log):
    """Without the thread, or with that outcome in every batch, nothing would be marked until the next start."""

    def fail(sql, params, execute):
        if "UPDATE" in sql and '"announced_at" =' in sql and name(1) in params:
            raise RuntimeError("broken")
        return execute()

    monkeypatch.setattr(models, "LEASE", timedelta(seconds=1))
    monkeypatch.setattr(relay_module, "BATCH_SECONDS", 0.5)
    with monkeypatch.context() as patched:
        patched.setattr(statements, "around", fail)
        broker.hold()
        configs = [save_config(number) for number in [1, 2, 3]]
        broker.wait_for_heard(*[config.filename for config in configs])
        broker.release()  # all three come at once
        log.wait_for(f"ERROR Could not note that {name(1)} was acknowledged")
        eventually(lambda: set(Announcement.objects.owed().values_list("filename", flat=True)) == {name(1)})
    wait_until_announced()


@pytest.mark.both_databases
def test_goes_on_after_whatever_error_in_its_thread(broker, statements, monkeypatch, log):
    with monkeypatch.context() as patched:
        patched.setattr(statements, "around", lambda sql, params, execute: 1 / 0)
        log.wait_for("ERROR Could not look for what is owed")
    Announcement.objects.record(CONFIGS_TOPIC, name(1), is_bulk=False)

    eventually(lambda: not Announcement.objects.exists())


# --- The file ----------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_in_place_is_put_there_before_it_is_announced(broker):
    config = save_config(1)
    wait_until_announced()
    path = mirror_storage("configs").directory / name(1)
    path.write_text("what a crash left")
    Announcement.objects.record(CONFIGS_TOPIC, name(1), is_bulk=False)
    wait_until_announced()

    assert path.read_bytes() == config.content_bytes
    assert broker.heard == [name(1)] * 2


def test_a_file_that_cannot_be_put_in_place_is_announced_when_it_can(broker):
    obstacle = mirror_storage("configs").directory / name(1)
    obstacle.mkdir()
    with pytest.raises(MirrorBehindError):
        save_config(1)
    note(1, claimed_until=timezone.now())  # nobody announces what was claimed
    save_config(2)
    eventually(lambda: Announcement.objects.get(filename=name(1)).tries)
    reason = Announcement.objects.get(filename=name(1)).last_error
    heard = list(broker.heard)
    obstacle.rmdir()
    wait_until_announced()

    assert "Is a directory" in reason
    assert name(1) not in heard
    assert obstacle.read_bytes() == DeviceConfig.objects.get(mac_address="aa-bb-cc-dd-ee-01").content_bytes
    assert broker.heard.count(name(1)) == 1


def test_a_file_at_which_something_unexpected_happens_holds_up_no_other(broker, log):
    asset = upload_asset("1.bin")
    wait_until_announced()
    with transaction.atomic(), bulk_change():  # the first that is owed is of a row that nothing of ours would save
        rename(asset, "../1.bin")
        Announcement.objects.record(ASSETS_TOPIC, "../1.bin", is_bulk=True)
        for number in [1, 2, 3]:
            save_config(number)
    eventually(lambda: set(Announcement.objects.owed().values_list("filename", flat=True)) == {"../1.bin"})
    eventually(lambda: "outside of the base path" in Announcement.objects.get(filename="../1.bin").last_error)
    rename(asset, "1.bin")
    wait_until_announced()

    assert "ERROR Could not look at the file of ../1.bin" in log.warnings


def rename(asset, filename):
    """Only rows change: the asset's, and its announcement's."""
    with transaction.atomic():
        Asset.objects.filter(pk=asset.pk).update(filename=filename)
        Announcement.objects.filter(topic=ASSETS_TOPIC).update(filename=filename)


@pytest.mark.both_databases
def test_what_is_owed_of_a_row_that_is_gone_is_cancelled(broker):
    Announcement.objects.record(CONFIGS_TOPIC, name(1), is_bulk=False)
    Announcement.objects.record(CONFIGS_TOPIC, "no MAC address.json", is_bulk=False)
    Announcement.objects.record(ASSETS_TOPIC, "gone.bin", is_bulk=False)

    eventually(lambda: not Announcement.objects.exists())
    assert broker.heard == []


@pytest.mark.both_databases
def test_a_file_that_is_saved_again_just_when_its_row_was_found_gone_is_announced(broker, statements, monkeypatch):
    """Otherwise nobody would ever hear of it."""
    is_gone, is_back = threading.Event(), threading.Event()

    def look_too_early(sql, params, execute):
        found = execute()
        if 'FROM "devices_deviceconfig"' in sql:
            is_gone.set()
            assert is_back.wait(LIMIT)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(statements, "around", look_too_early)
        Announcement.objects.record(CONFIGS_TOPIC, name(1), is_bulk=False)
        assert is_gone.wait(LIMIT)
        with bulk_change():  # not claimed: only the relay can announce it
            save_config(1)
        is_back.set()
        broker.wait_for_heard(name(1))
    wait_until_announced()
