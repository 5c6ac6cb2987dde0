"""Messages that are handed to a messenger, and what became of them."""

from iotsupport.tests.support.waiting import LIMIT
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC, Message
from notifications.outcomes import Verdict


def config(name, revision=None, **values):
    return Message(CONFIGS_TOPIC, name, revision or hash(name), **values)


def asset(name, **values):
    return Message(ASSETS_TOPIC, name, hash(name), **values)


A, B, C = config("a"), config("b"), config("c")


def send(messenger, *messages):
    """Hand them over at one moment, as a save and the relay may."""
    for message in messages:
        messenger.send(message)


def outcomes_of(messenger, count):
    """The next outcomes, without what only says that something is still held."""
    found: list[tuple[str, str, str]] = []
    while True:
        for message, verdict, reason in messenger.outcomes.take():
            if verdict is not Verdict.HELD:
                found.append((message.filename, verdict.value, reason))
            if len(found) == count:
                return found
        assert messenger.outcomes.wait(LIMIT), found
