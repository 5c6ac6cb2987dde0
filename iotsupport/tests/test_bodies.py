"""How bodies come in, and who must go when requests that are not whole hold too much."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from iotsupport.serving import bodies
from iotsupport.serving.bodies import (
    BodyLate,
    BodyTooLarge,
    BodyTrouble,
    Ledger,
    Reservations,
    StreamedBody,
    UnreadBody,
)
from iotsupport.serving.clients import network_of


class TestTheLedger:
    @pytest.fixture
    def ledger(self) -> Ledger[str]:
        return Ledger(most_bytes=100, most_bytes_of_one=60)

    def test_lets_all_stay_while_there_is_room(self, ledger):
        for client, request, count in [("a", "a1", 60), ("b", "b1", 40), ("c", "c1", 0)]:
            ledger.hold(client, request, count)

            assert ledger.who_must_go(client, request) is None

    def test_counts_what_a_request_has_grown_to(self, ledger):
        for count in range(0, 61, 10):
            ledger.hold("a", "a1", count)

        assert ledger.who_must_go("a", "a1") is None

    def test_names_the_oldest_of_a_client_that_holds_too_much(self, ledger):
        for request in ["a1", "a2", "a3"]:
            ledger.hold("a", request, 20)
        ledger.hold("a", "a3", 21)

        assert ledger.who_must_go("a", "a3") == "a1"
        ledger.release("a1")
        assert ledger.who_must_go("a", "a3") is None

    def test_names_the_oldest_of_the_client_that_holds_most_when_all_hold_too_much(self, ledger):
        ledger.hold("b", "b1", 30)
        ledger.hold("a", "a1", 20)
        ledger.hold("a", "a2", 30)
        ledger.hold("c", "c1", 25)

        assert ledger.who_must_go("c", "c1") == "a1"

    def test_lets_those_stay_that_have_come_whole(self, ledger):
        ledger.hold("a", "a1", 50)
        ledger.keep("a1")
        ledger.hold("a", "a2", 11)

        assert ledger.who_must_go("a", "a2") == "a2"

    def test_names_the_newest_where_nothing_else_can_go(self, ledger):
        ledger.hold("a", "a1", 60)
        ledger.keep("a1")
        ledger.hold("b", "b1", 41)
        ledger.keep("b1")

        assert ledger.who_must_go("b", "b1") == "b1"

    def test_forgets_what_is_released(self, ledger):
        for _ in range(3):
            ledger.hold("a", "a1", 60)
            ledger.keep("a1")
            ledger.release("a1")
            ledger.release("a1")
        ledger.keep("unknown")
        ledger.hold("a", "a2", 60)

        assert ledger.who_must_go("a", "a2") is None


class TestReservations:
    def test_are_given_while_there_is_room(self):
        reservations: Reservations[str] = Reservations(100)

        assert reservations.take("a", 60)
        assert not reservations.take("b", 41)
        assert reservations.take("c", 40)
        assert reservations.give_back("a")
        assert not reservations.give_back("a")
        assert reservations.take("b", 41)

    def test_one_alone_may_be_larger_than_all_of_it(self):
        reservations: Reservations[str] = Reservations(100)

        assert reservations.take("a", 1000)
        assert not reservations.take("b", 1)


class TestDeadlines:
    @pytest.mark.parametrize(
        ("now", "received", "expected"),
        [
            (1000.0, 0, 1020.0),
            (1015.0, 1, 1020.0),  # a byte each fifteen seconds gains nothing
            (1010.0, 10 * bodies.LEAST_BYTES_A_SECOND, 1030.0),
            (1010.0, 10_000 * bodies.LEAST_BYTES_A_SECOND, 1030.0),  # nor is a good beginning a licence to stall
        ],
    )
    def test_follow_what_has_come(self, monkeypatch, now, received, expected):
        monkeypatch.setattr("iotsupport.serving.bodies.time.monotonic", lambda: now)

        assert bodies.deadline(1000.0, received, 20.0) == pytest.approx(expected, abs=0.01)


class TestStreamedBodies:
    @pytest.fixture
    def ends(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            yield ours, theirs

    def test_begin_with_what_has_come_already(self, ends):
        ours, theirs = ends
        theirs.sendall(b"456789 and the next request")
        body = StreamedBody(ours, b"0123", 10, grace_seconds=20)

        assert (body.read(6), body.read(), body.read()) == (b"012345", b"6789", b"")
        assert body.is_at_end
        assert body.trouble is None
        assert ours.recv(100) == b" and the next request"

    def test_say_that_not_all_came(self, ends):
        ours, theirs = ends
        theirs.close()
        body = StreamedBody(ours, b"0123", 10, grace_seconds=20)

        with pytest.raises(BodyTrouble, match="Only 4 of 10 bytes arrived") as caught:
            body.read()
        assert (caught.value.status, caught.value.code, body.trouble) == (400, "INCOMPLETE", caught.value)

    def test_say_that_it_did_not_come_in_time(self, ends):
        body = StreamedBody(ends[0], b"0123", 10, grace_seconds=0.01)

        with pytest.raises(BodyLate, match="Only 4 of 10 bytes arrived in time") as caught:
            body.read()
        assert (caught.value.status, body.is_at_end) == (503, False)


def test_a_body_that_nobody_is_to_read_remembers_who_tried():
    body = UnreadBody(BodyTooLarge("Too much."))

    assert body.trouble is None
    for read in [body.read, body.readline, lambda: body.read(10)]:
        with pytest.raises(BodyTooLarge, match=r"Too much\."):
            read()
    assert (body.trouble.status, body.trouble.code) == (413, "TOO_LARGE")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_a_client_is_known_by_what_addresses_it_can_have(address: str, network: str):
    assert network_of(address) == network
