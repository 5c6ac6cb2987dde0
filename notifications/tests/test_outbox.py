"""What is owed, as the database has it: recorded, handed out, announced, and left to others."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from iotsupport.tests.support.waiting import LIMIT
from notifications import models
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, TOPICS
from notifications.models import LEASE, Announcement
from notifications.pace import LONGEST_PAUSE
from notifications.tests.conftest import save_config, upload_asset

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]

LAMP = (CONFIGS_TOPIC, "lamp.json")


def record(filename="lamp.json", topic=CONFIGS_TOPIC, *, is_bulk=False, **values):
    return Announcement.objects.record(topic, filename, is_bulk=is_bulk, **values)


def claim(claimed_by="here", limit=100, topics=TOPICS):
    return [message.filename for message in Announcement.objects.claim(claimed_by, topics, limit)]


def row(filename="lamp.json"):
    return Announcement.objects.get(filename=filename)


def lapse(**values):
    """Let a claim or a pause be over."""
    Announcement.objects.update(**{name: timezone.now() - timedelta(seconds=1) for name in values or ["claimed_until"]})


# --- Recording ------------------------------------------------------------------------------------------------------


def test_a_save_is_one_write_more(start, scripted_broker):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            save_config(1)
        return [query["sql"] for query in captured]

    save_config(1)
    off = queries()
    start(scripted_broker.url)
    on = queries()

    added = [sql for sql in on if "notifications_debt" in sql]
    assert not [sql for sql in off if "notifications_debt" in sql]
    assert [sql.split()[0] for sql in added] == ["INSERT"]
    assert len(on) == len(off) + 1


def test_records_topic_and_file(start, scripted_broker):
    scripted_broker.hold()
    start(scripted_broker.url)

    save_config(1)
    upload_asset("firmware.bin")

    assert sorted(Announcement.objects.owed().values_list("topic", "filename")) == [
        (ASSETS_TOPIC, "firmware.bin"),
        (CONFIGS_TOPIC, "aa-bb-cc-dd-ee-01.json"),
    ]


def test_a_hundred_saves_are_one_announcement_as_old_as_the_first():
    first = record() and row().owed_since
    for _ in range(99):
        record()

    assert Announcement.objects.count() == 1
    assert row().owed_since == first


def test_an_announced_file_is_owed_anew_in_the_same_row():
    Announcement.objects.mark_announced([record()])
    announced = row()
    record()

    assert announced.owed_since is None
    assert announced.announced_at is not None
    assert row().pk == announced.pk
    assert row().owed_since > announced.announced_at
    assert row().announced_at == announced.announced_at


def test_the_same_name_on_both_topics_is_two_announcements():
    record("lamp.json", CONFIGS_TOPIC)
    record("lamp.json", ASSETS_TOPIC)

    assert Announcement.objects.count() == 2


def test_the_database_takes_no_second_announcement_of_a_file():
    record()

    with pytest.raises(IntegrityError), transaction.atomic():
        Announcement.objects.create(topic=CONFIGS_TOPIC, filename="lamp.json", owed_since=timezone.now())


def test_a_save_ends_the_pause_and_the_claim_of_the_earlier_version():
    message = record(claimed_by="here")
    Announcement.objects.note_failure(message, "Quota exceeded")
    paused = row()
    record()

    assert paused.retry_at is not None
    assert (row().retry_at, row().claimed_by, row().claimed_until) == (None, "", None)


def test_a_save_of_a_refused_topic_tells_the_reason():
    record(reason="Not authorized")

    assert row().last_error == "Not authorized"


def test_records_although_it_was_announced_again_by_hand_at_the_same_moment(monkeypatch):
    """Between the look for the row and its making, somebody else makes it."""
    update = models.AnnouncementQuerySet.update

    def update_too_early(rows, **values):
        found = update(rows, **values)
        monkeypatch.undo()
        Announcement.objects.record_again(CONFIGS_TOPIC, ["lamp.json"])
        return found

    monkeypatch.setattr(models.AnnouncementQuerySet, "update", update_too_early)
    with transaction.atomic():
        message = record()

    assert row().message == message
    assert Announcement.objects.owed().count() == 1


def test_str_is_the_file_name():
    record()

    assert str(row()) == "lamp.json"


# --- Announcing again --------------------------------------------------------------------------------------------


def test_records_again_what_was_announced_and_what_was_never_recorded():
    Announcement.objects.mark_announced([record("announced.json")])
    earlier = row("announced.json").revision
    Announcement.objects.record_again(CONFIGS_TOPIC, ["announced.json", "new.json"])

    assert sorted(Announcement.objects.owed().values_list("filename", "is_bulk")) == [
        ("announced.json", True),
        ("new.json", True),
    ]
    assert row("announced.json").revision != earlier


def test_one_that_is_recorded_again_is_not_bulk():
    Announcement.objects.record_again(CONFIGS_TOPIC, ["lamp.json"])

    assert row().is_bulk is False


def test_recording_again_outdates_what_is_in_flight():
    message = record(claimed_by="here")
    Announcement.objects.record_again(CONFIGS_TOPIC, ["lamp.json"])
    Announcement.objects.mark_announced([message])

    assert Announcement.objects.owed().count() == 1
    assert claim() == ["lamp.json"]


def test_records_thousands_again_in_few_queries(django_assert_max_num_queries):
    names = [f"{number}.json" for number in range(1200)]
    Announcement.objects.record_again(CONFIGS_TOPIC, names[:600])

    with django_assert_max_num_queries(20):
        Announcement.objects.record_again(CONFIGS_TOPIC, names)

    assert Announcement.objects.owed().count() == 1200


def test_records_nothing_again_where_nothing_is_chosen():
    Announcement.objects.record_again(CONFIGS_TOPIC, [])

    assert not Announcement.objects.exists()


# --- Claiming ----------------------------------------------------------------------------------------------------


def test_claims_each_once():
    record()

    assert claim("here") == ["lamp.json"]
    assert claim("there") == []
    assert claim("here") == []


def test_claims_what_a_person_waits_for_first_then_the_oldest():
    record("bulk.json", is_bulk=True)
    record("first.json")
    record("second.json")

    assert claim() == ["first.json", "second.json", "bulk.json"]


def test_claims_no_more_than_asked():
    for number in range(5):
        record(f"{number}.json")

    assert claim(limit=2) == ["0.json", "1.json"]
    assert claim(limit=9) == ["2.json", "3.json", "4.json"]


def test_claims_only_the_topics_asked_however_many_of_the_others_are_older():
    Announcement.objects.record_again(ASSETS_TOPIC, [f"{number}.bin" for number in range(3000)])
    Announcement.objects.update(is_bulk=False)
    record("lamp.json")

    assert claim(topics=[CONFIGS_TOPIC], limit=1) == ["lamp.json"]
    assert claim(topics=[]) == []


def test_claims_what_is_due_although_thousands_before_it_are_paused():
    Announcement.objects.record_again(ASSETS_TOPIC, [f"{number}.bin" for number in range(3000)])
    Announcement.objects.update(is_bulk=False, retry_at=timezone.now() + timedelta(seconds=60))
    record("lamp.json")

    assert claim(limit=1) == ["lamp.json"]


def test_what_a_save_claims_is_its_processs_own():
    record(claimed_by="here")

    assert claim("there") == []
    assert row().claimed_by == "here"


def test_takes_over_what_a_dead_process_claimed():
    record(claimed_by="dead")
    lapse()

    assert claim("here") == ["lamp.json"]


def test_does_not_take_over_what_a_living_process_renews():
    message = record(claimed_by="alive")
    lapse()
    Announcement.objects.renew("alive", [message])

    assert claim("here") == []


def test_renews_neither_what_others_took_over_nor_what_was_saved_again():
    message = record(claimed_by="slow")
    lapse()
    claim("here")
    Announcement.objects.renew("slow", [message])
    mine = row().claimed_by
    saved_again = record(claimed_by="there") and row().claimed_until
    Announcement.objects.renew("there", [message])

    assert mine == "here"
    assert row().claimed_until == saved_again


@pytest.mark.parametrize("name", ["claimed_until", "retry_at"])
def test_a_clock_that_was_set_back_holds_nothing_up(name):
    record(claimed_by="dead")
    Announcement.objects.update(**{"claimed_until": None, name: timezone.now() + timedelta(hours=5)})

    assert claim("here") == ["lamp.json"]


def test_looks_without_writing_while_nothing_is_due(django_assert_num_queries):
    record(claimed_by="there")

    with django_assert_num_queries(1) as looked:
        claim("here")

    assert looked.captured_queries[0]["sql"].startswith("SELECT")


def test_processes_that_claim_at_once_get_different_ones(long_leases):
    names = [f"{number:03}.json" for number in range(200)]
    Announcement.objects.record_again(CONFIGS_TOPIC, names)
    start = threading.Barrier(4)

    def claim_all(claimed_by):
        start.wait()
        mine, more = [], True
        try:
            while more:
                mine += (more := claim(claimed_by, limit=7))
            return mine
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        claimed = [name for mine in threads.map(claim_all, "abcd") for name in mine]

    assert sorted(claimed) == names


def test_a_hundred_saves_at_once_are_one_announcement():
    start = threading.Barrier(4)

    def record_often(number):
        start.wait()
        try:
            for _ in range(25):
                with transaction.atomic():
                    record()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(record_often, range(4)))

    assert Announcement.objects.count() == 1


# --- What became of it -------------------------------------------------------------------------------------------


def test_marks_only_the_version_that_was_sent():
    earlier = record()
    later = record()

    Announcement.objects.mark_announced([earlier])
    still_owed = Announcement.objects.owed().count()
    Announcement.objects.mark_announced([later])

    assert still_owed == 1
    assert not Announcement.objects.owed().exists()


def test_marks_many_in_one_query_for_each_topic(django_assert_num_queries):
    messages = [record(f"{number}.json") for number in range(200)]
    messages += [record(f"{number}.bin", ASSETS_TOPIC) for number in range(200)]

    with transaction.atomic(), django_assert_num_queries(2):
        Announcement.objects.mark_announced(messages)

    assert not Announcement.objects.owed().exists()


def test_marking_forgets_the_trouble():
    Announcement.objects.note_failure(record(), "Quota exceeded")
    Announcement.objects.mark_announced([row().message])

    assert (row().tries, row().last_error, row().retry_at) == (0, "", None)


def test_marking_nothing_changes_nothing(django_assert_num_queries):
    record()

    with transaction.atomic(), django_assert_num_queries(0):
        Announcement.objects.mark_announced([])
        Announcement.objects.release("here", [])
        Announcement.objects.renew("here", [])


def test_releases_its_own_claim_and_no_other():
    message = record(claimed_by="here")
    Announcement.objects.release("there", [message])
    kept = row().claimed_by
    Announcement.objects.release("here", [message])

    assert kept == "here"
    assert claim("there") == ["lamp.json"]


def test_releases_all_of_a_process_that_ends():
    record("a.json", claimed_by="here")
    record("b.json", claimed_by="here")
    record("c.json", claimed_by="there")

    Announcement.objects.release_all("here")

    assert claim("next") == ["a.json", "b.json"]


def test_keeps_the_reason_of_a_failure_and_pauses():
    Announcement.objects.note_failure(record(claimed_by="here"), "Quota exceeded")
    paused = claim()
    lapse(retry_at=True)

    assert paused == []
    assert (row().tries, row().last_error, row().claimed_by) == (1, "Quota exceeded", "")
    assert claim() == ["lamp.json"]


def test_tells_how_often_it_failed_to_whoever_claims_it():
    Announcement.objects.note_failure(record(), "Quota exceeded")
    lapse(retry_at=True)

    [message] = Announcement.objects.claim("here", TOPICS, 1)

    assert message.tries == 1


def test_pauses_longer_after_each_failure():
    message = record()
    for seconds in [5, 10, 20]:
        before = timezone.now()
        Announcement.objects.note_failure(message, "Quota exceeded")

        failed_at = row().retry_at - timedelta(seconds=seconds)
        assert before <= failed_at <= timezone.now()


def test_the_first_failures_may_be_free():
    message, due = record(), []
    for _ in range(4):
        Announcement.objects.note_failure(message, "lost", free_tries=3)
        due.append(row().retry_at is None)

    assert due == [True, True, True, False]


def test_a_failure_of_an_earlier_version_says_nothing_of_the_last():
    message = record()
    record(claimed_by="here")
    Announcement.objects.note_failure(message, "Quota exceeded")

    assert (row().tries, row().last_error, row().claimed_by) == (0, "", "here")


def test_a_late_failure_does_not_owe_what_is_announced():
    message = record()
    Announcement.objects.mark_announced([message])
    Announcement.objects.note_failure(message, "lost")

    assert (row().owed_since, row().tries, row().last_error) == (None, 0, "")


def test_notes_the_trouble_of_a_topic_with_all_that_is_owed_on_it():
    record("a.bin", ASSETS_TOPIC)
    Announcement.objects.mark_announced([record("announced.bin", ASSETS_TOPIC)])
    record("lamp.json", CONFIGS_TOPIC)

    Announcement.objects.note_suspension(ASSETS_TOPIC, "Not authorized")

    assert list(Announcement.objects.exclude(last_error="").values_list("filename", "last_error")) == [
        ("a.bin", "Not authorized")
    ]


def test_cancels_the_announcement_of_a_deleted_file():
    record("lamp.json", CONFIGS_TOPIC)
    record("lamp.json", ASSETS_TOPIC)

    Announcement.objects.cancel(*LAMP)

    assert list(Announcement.objects.values_list("topic", flat=True)) == [ASSETS_TOPIC]


def test_cancels_that_of_a_file_that_is_gone_unless_it_was_saved_again():
    message = record()
    again = record()

    Announcement.objects.cancel_version(message)
    kept = Announcement.objects.exists()
    Announcement.objects.cancel_version(again)

    assert kept
    assert not Announcement.objects.exists()


@pytest.mark.postgresql  # SQLite lets one transaction write at a time
def test_an_open_save_of_one_file_does_not_hold_up_the_others():
    one, other, unclaimed = record("one.json"), record("other.json"), record("unclaimed.json")
    is_saved, is_noted = threading.Event(), threading.Event()

    def save_slowly():
        with transaction.atomic():
            record("one.json")
            record("unclaimed.json")
            is_saved.set()
            assert is_noted.wait(LIMIT)
        connection.close()

    with ThreadPoolExecutor(1) as threads:
        saving = threads.submit(save_slowly)
        assert is_saved.wait(LIMIT)
        Announcement.objects.mark_announced([one, other])
        Announcement.objects.note_failure(unclaimed, "lost")
        claimed = claim()
        Announcement.objects.release_all("here")
        Announcement.objects.note_suspension(CONFIGS_TOPIC, "Not authorized")
        is_noted.set()
        saving.result()

    assert claimed == []
    assert sorted(Announcement.objects.owed().values_list("filename", "tries")) == [
        ("one.json", 0),
        ("unclaimed.json", 0),
    ]


def test_the_pauses_and_claims_that_are_written_are_believed():
    """What counts as the work of a wrong clock lies beyond them."""
    record(claimed_by="here")
    Announcement.objects.update(claimed_until=timezone.now() + LEASE)
    claimed = claim("there")
    Announcement.objects.update(claimed_until=None, retry_at=timezone.now() + LONGEST_PAUSE)

    assert claimed == claim("there") == []
