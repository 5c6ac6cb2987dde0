"""What is owed, as the database has it: recorded, handed out, settled, and left to others."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications import models
from notifications.announcements import ASSETS_TOPIC, CONFIGS_TOPIC, TOPICS
from notifications.models import LEASE, LONGEST_PAUSE, Debt, pause
from notifications.tests.conftest import save_config, upload_asset

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]

LAMP = (CONFIGS_TOPIC, "lamp.json")


def owe(filename="lamp.json", topic=CONFIGS_TOPIC, *, is_bulk=False, **values):
    return Debt.objects.owe(topic, filename, is_bulk=is_bulk, **values)


def claim(claimed_by="here", limit=100, topics=TOPICS):
    return [announcement.filename for announcement in Debt.objects.claim(claimed_by, topics, limit)]


def debt(filename="lamp.json"):
    return Debt.objects.get(filename=filename)


def lapse(**values):
    """Let a claim or a pause be over."""
    Debt.objects.update(**{name: timezone.now() - timedelta(seconds=1) for name in values or ["claimed_until"]})


# --- Owing -------------------------------------------------------------------------------------------------------


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

    assert sorted(Debt.objects.owed().values_list("topic", "filename")) == [
        (ASSETS_TOPIC, "firmware.bin"),
        (CONFIGS_TOPIC, "aa-bb-cc-dd-ee-01.json"),
    ]


def test_a_hundred_saves_are_one_debt_as_old_as_the_first():
    first = owe() and debt().owed_since
    for _ in range(99):
        owe()

    assert Debt.objects.count() == 1
    assert debt().owed_since == first


def test_a_settled_file_is_owed_anew_in_the_same_row():
    Debt.objects.settle([owe()])
    settled = debt()
    owe()

    assert settled.owed_since is None
    assert settled.announced_at is not None
    assert debt().pk == settled.pk
    assert debt().owed_since > settled.announced_at
    assert debt().announced_at == settled.announced_at


def test_the_same_name_on_both_topics_is_two_debts():
    owe("lamp.json", CONFIGS_TOPIC)
    owe("lamp.json", ASSETS_TOPIC)

    assert Debt.objects.count() == 2


def test_the_database_takes_no_second_debt_of_a_file():
    owe()

    with pytest.raises(IntegrityError), transaction.atomic():
        Debt.objects.create(topic=CONFIGS_TOPIC, filename="lamp.json", owed_since=timezone.now())


def test_a_save_ends_the_pause_and_the_claim_of_the_earlier_version():
    announcement = owe(claimed_by="here")
    Debt.objects.note_failure(announcement, "Quota exceeded")
    paused = debt()
    owe()

    assert paused.retry_at is not None
    assert (debt().retry_at, debt().claimed_by, debt().claimed_until) == (None, "", None)


def test_a_save_of_a_refused_topic_tells_the_reason():
    owe(trouble="Not authorized")

    assert debt().last_error == "Not authorized"


def test_owes_although_it_was_announced_again_by_hand_at_the_same_moment(monkeypatch):
    """Between the look for the row and its making, somebody else makes it."""
    update = models.DebtQuerySet.update

    def update_too_early(debts, **values):
        found = update(debts, **values)
        monkeypatch.undo()
        Debt.objects.owe_again(CONFIGS_TOPIC, ["lamp.json"])
        return found

    monkeypatch.setattr(models.DebtQuerySet, "update", update_too_early)
    with transaction.atomic():
        announcement = owe()

    assert debt().announcement == announcement
    assert Debt.objects.owed().count() == 1


def test_str_is_the_file_name():
    owe()

    assert str(debt()) == "lamp.json"


# --- Announcing again --------------------------------------------------------------------------------------------


def test_owes_again_what_was_settled_and_what_was_never_owed():
    Debt.objects.settle([owe("settled.json")])
    earlier = debt("settled.json").revision
    Debt.objects.owe_again(CONFIGS_TOPIC, ["settled.json", "new.json"])

    assert sorted(Debt.objects.owed().values_list("filename", "is_bulk")) == [
        ("new.json", True),
        ("settled.json", True),
    ]
    assert debt("settled.json").revision != earlier


def test_one_that_is_owed_again_is_not_bulk():
    Debt.objects.owe_again(CONFIGS_TOPIC, ["lamp.json"])

    assert debt().is_bulk is False


def test_owing_again_outdates_what_is_in_flight():
    announcement = owe(claimed_by="here")
    Debt.objects.owe_again(CONFIGS_TOPIC, ["lamp.json"])
    Debt.objects.settle([announcement])

    assert Debt.objects.owed().count() == 1
    assert claim() == ["lamp.json"]


def test_owes_thousands_again_in_few_queries(django_assert_max_num_queries):
    names = [f"{number}.json" for number in range(1200)]
    Debt.objects.owe_again(CONFIGS_TOPIC, names[:600])

    with django_assert_max_num_queries(20):
        Debt.objects.owe_again(CONFIGS_TOPIC, names)

    assert Debt.objects.owed().count() == 1200


def test_owes_nothing_again_where_nothing_is_chosen():
    Debt.objects.owe_again(CONFIGS_TOPIC, [])

    assert not Debt.objects.exists()


# --- Claiming ----------------------------------------------------------------------------------------------------


def test_claims_each_once():
    owe()

    assert claim("here") == ["lamp.json"]
    assert claim("there") == []
    assert claim("here") == []


def test_claims_what_a_person_waits_for_first_then_the_oldest():
    owe("bulk.json", is_bulk=True)
    owe("first.json")
    owe("second.json")

    assert claim() == ["first.json", "second.json", "bulk.json"]


def test_claims_no_more_than_asked():
    for number in range(5):
        owe(f"{number}.json")

    assert claim(limit=2) == ["0.json", "1.json"]
    assert claim(limit=9) == ["2.json", "3.json", "4.json"]


def test_claims_only_the_topics_asked_however_many_of_the_others_are_older():
    Debt.objects.owe_again(ASSETS_TOPIC, [f"{number}.bin" for number in range(3000)])
    Debt.objects.update(is_bulk=False)
    owe("lamp.json")

    assert claim(topics=[CONFIGS_TOPIC], limit=1) == ["lamp.json"]
    assert claim(topics=[]) == []


def test_claims_what_is_due_although_thousands_before_it_are_paused():
    Debt.objects.owe_again(ASSETS_TOPIC, [f"{number}.bin" for number in range(3000)])
    Debt.objects.update(is_bulk=False, retry_at=timezone.now() + timedelta(seconds=60))
    owe("lamp.json")

    assert claim(limit=1) == ["lamp.json"]


def test_what_a_save_claims_is_its_processs_own():
    owe(claimed_by="here")

    assert claim("there") == []
    assert debt().claimed_by == "here"


def test_takes_over_what_a_dead_process_claimed():
    owe(claimed_by="dead")
    lapse()

    assert claim("here") == ["lamp.json"]


def test_does_not_take_over_what_a_living_process_renews():
    announcement = owe(claimed_by="alive")
    lapse()
    Debt.objects.renew("alive", [announcement])

    assert claim("here") == []


def test_renews_neither_what_others_took_over_nor_what_was_saved_again():
    announcement = owe(claimed_by="slow")
    lapse()
    claim("here")
    Debt.objects.renew("slow", [announcement])
    mine = debt().claimed_by
    saved_again = owe(claimed_by="there") and debt().claimed_until
    Debt.objects.renew("there", [announcement])

    assert mine == "here"
    assert debt().claimed_until == saved_again


@pytest.mark.parametrize("name", ["claimed_until", "retry_at"])
def test_a_clock_that_was_set_back_holds_nothing_up(name):
    owe(claimed_by="dead")
    Debt.objects.update(**{"claimed_until": None, name: timezone.now() + timedelta(hours=5)})

    assert claim("here") == ["lamp.json"]


def test_looks_without_writing_while_nothing_is_due(django_assert_num_queries):
    owe(claimed_by="there")

    with django_assert_num_queries(1) as looked:
        claim("here")

    assert looked.captured_queries[0]["sql"].startswith("SELECT")


def test_processes_that_claim_at_once_get_different_ones(long_leases):
    names = [f"{number:03}.json" for number in range(200)]
    Debt.objects.owe_again(CONFIGS_TOPIC, names)
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


def test_a_hundred_saves_at_once_are_one_debt():
    start = threading.Barrier(4)

    def owe_often(number):
        start.wait()
        try:
            for _ in range(25):
                with transaction.atomic():
                    owe()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(owe_often, range(4)))

    assert Debt.objects.count() == 1


# --- What became of it -------------------------------------------------------------------------------------------


def test_settles_only_the_version_that_was_sent():
    earlier = owe()
    later = owe()

    Debt.objects.settle([earlier])
    still_owed = Debt.objects.owed().count()
    Debt.objects.settle([later])

    assert still_owed == 1
    assert not Debt.objects.owed().exists()


def test_settles_many_in_one_query_for_each_topic(django_assert_num_queries):
    announcements = [owe(f"{number}.json") for number in range(200)]
    announcements += [owe(f"{number}.bin", ASSETS_TOPIC) for number in range(200)]

    with transaction.atomic(), django_assert_num_queries(2):
        Debt.objects.settle(announcements)

    assert not Debt.objects.owed().exists()


def test_settling_forgets_the_trouble():
    Debt.objects.note_failure(owe(), "Quota exceeded")
    Debt.objects.settle([debt().announcement])

    assert (debt().tries, debt().last_error, debt().retry_at) == (0, "", None)


def test_settling_nothing_changes_nothing(django_assert_num_queries):
    owe()

    with transaction.atomic(), django_assert_num_queries(0):
        Debt.objects.settle([])
        Debt.objects.release("here", [])
        Debt.objects.renew("here", [])


def test_releases_its_own_claim_and_no_other():
    announcement = owe(claimed_by="here")
    Debt.objects.release("there", [announcement])
    kept = debt().claimed_by
    Debt.objects.release("here", [announcement])

    assert kept == "here"
    assert claim("there") == ["lamp.json"]


def test_releases_all_of_a_process_that_ends():
    owe("a.json", claimed_by="here")
    owe("b.json", claimed_by="here")
    owe("c.json", claimed_by="there")

    Debt.objects.release_all("here")

    assert claim("next") == ["a.json", "b.json"]


def test_keeps_the_reason_of_a_failure_and_pauses():
    Debt.objects.note_failure(owe(claimed_by="here"), "Quota exceeded")
    paused = claim()
    lapse(retry_at=True)

    assert paused == []
    assert (debt().tries, debt().last_error, debt().claimed_by) == (1, "Quota exceeded", "")
    assert claim() == ["lamp.json"]


def test_tells_how_often_it_failed_to_whoever_claims_it():
    Debt.objects.note_failure(owe(), "Quota exceeded")
    lapse(retry_at=True)

    [announcement] = Debt.objects.claim("here", TOPICS, 1)

    assert announcement.tries == 1


def test_pauses_longer_each_time_but_not_for_ever():
    pauses = [pause(tries).total_seconds() for tries in [1, 2, 3, 6, 7, 8, 1_000_000]]

    assert pauses == [5, 10, 20, 160, 300, 300, 300]


def test_pauses_longer_after_each_failure():
    announcement = owe()
    for seconds in [5, 10, 20]:
        before = timezone.now()
        Debt.objects.note_failure(announcement, "Quota exceeded")

        failed_at = debt().retry_at - timedelta(seconds=seconds)
        assert before <= failed_at <= timezone.now()


def test_the_first_failures_may_be_free():
    announcement, due = owe(), []
    for _ in range(4):
        Debt.objects.note_failure(announcement, "lost", free_tries=3)
        due.append(debt().retry_at is None)

    assert due == [True, True, True, False]


def test_a_failure_of_an_earlier_version_says_nothing_of_the_last():
    announcement = owe()
    owe(claimed_by="here")
    Debt.objects.note_failure(announcement, "Quota exceeded")

    assert (debt().tries, debt().last_error, debt().claimed_by) == (0, "", "here")


def test_a_late_failure_does_not_owe_what_is_settled():
    announcement = owe()
    Debt.objects.settle([announcement])
    Debt.objects.note_failure(announcement, "lost")

    assert (debt().owed_since, debt().tries, debt().last_error) == (None, 0, "")


def test_notes_the_trouble_of_a_topic_with_all_that_is_owed_on_it():
    owe("a.bin", ASSETS_TOPIC)
    Debt.objects.settle([owe("settled.bin", ASSETS_TOPIC)])
    owe("lamp.json", CONFIGS_TOPIC)

    Debt.objects.note_trouble(ASSETS_TOPIC, "Not authorized")

    assert list(Debt.objects.exclude(last_error="").values_list("filename", "last_error")) == [
        ("a.bin", "Not authorized")
    ]


def test_cancels_the_debt_of_a_deleted_file():
    owe("lamp.json", CONFIGS_TOPIC)
    owe("lamp.json", ASSETS_TOPIC)

    Debt.objects.cancel(*LAMP)

    assert list(Debt.objects.values_list("topic", flat=True)) == [ASSETS_TOPIC]


def test_forgets_a_file_that_is_gone_unless_it_was_saved_again():
    announcement = owe()
    again = owe()

    Debt.objects.forget(announcement)
    kept = Debt.objects.exists()
    Debt.objects.forget(again)

    assert kept
    assert not Debt.objects.exists()


@pytest.mark.postgresql  # SQLite lets one transaction write at a time
def test_an_open_save_of_one_file_does_not_hold_up_the_others():
    one, other, unclaimed = owe("one.json"), owe("other.json"), owe("unclaimed.json")
    is_saved, is_noted = threading.Event(), threading.Event()

    def save_slowly():
        with transaction.atomic():
            owe("one.json")
            owe("unclaimed.json")
            is_saved.set()
            is_noted.wait(60)
        connection.close()

    with ThreadPoolExecutor(1) as threads:
        saving = threads.submit(save_slowly)
        is_saved.wait(60)
        Debt.objects.settle([one, other])
        Debt.objects.note_failure(unclaimed, "lost")
        claimed = claim()
        Debt.objects.release_all("here")
        Debt.objects.note_trouble(CONFIGS_TOPIC, "Not authorized")
        is_noted.set()
        saving.result()

    assert claimed == []
    assert sorted(Debt.objects.owed().values_list("filename", "tries")) == [("one.json", 0), ("unclaimed.json", 0)]


def test_the_pauses_and_claims_that_are_written_are_believed():
    """What counts as the work of a wrong clock lies beyond them."""
    owe(claimed_by="here")
    Debt.objects.update(claimed_until=timezone.now() + LEASE)
    claimed = claim("there")
    Debt.objects.update(claimed_until=None, retry_at=timezone.now() + LONGEST_PAUSE)

    assert claimed == claim("there") == []
