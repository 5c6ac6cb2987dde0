"""Commands and forked processes: each has a connection of its own, and leaves in good order."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from iotsupport.tests.support.mosquitto import Subscriber
from iotsupport.tests.support.server import manage
from iotsupport.tests.support.waiting import LIMIT, eventually
from notifications.tests.conftest import save_config, wait_until_announced

# A busy machine may need longer than a command waits at its end. These go before what is not about how long it does:
# for the broker and the database, or for the database alone. And what was sent is sent again where it could not be
# noted within the lease, for the database was busy: so that is longer, too.
NO_HURRY = f"""
from datetime import timedelta
import notifications.models as claims
import notifications.publisher as limits
limits.STOP_SECONDS = limits.NOTE_SECONDS = {LIMIT}
claims.LEASE = timedelta(hours=1)
"""
NOTED = f"""
import notifications.publisher as limits
limits.NOTE_SECONDS = {LIMIT}
"""
SAVE = """
from devices.models import DeviceConfig
from notifications.models import Announcement
DeviceConfig.objects.update_or_create(mac_address="aa-bb-cc-dd-ee-ff", defaults={"content": "{}"})
print(DeviceConfig.objects.count(), "saved,", Announcement.objects.owed().count(), "owed")
"""
ANNOUNCE = """
from notifications.models import Announcement
from notifications.publisher import publisher
from iotsupport.tests.support.waiting import poll
publisher.serve()
poll(Announcement.objects.owed().count, lambda count: count == 0)
"""
IMPORT = """
from django.core.management import call_command
call_command("import_configs", {directory!r})
"""
UNTIL_ONE_IS_ANNOUNCED = """
from iotsupport.tests.support.waiting import poll
from notifications.models import Announcement
poll(lambda: Announcement.objects.filter(owed_since=None).count(), bool)
"""
UNTIL_TROUBLE_IS_KNOWN = """
from iotsupport.tests.support.waiting import poll
from notifications.publisher import publisher
poll(lambda: publisher.disconnection()[1], bool)
"""
ANNOUNCED = b'{"filename": "aa-bb-cc-dd-ee-ff.json"}'


@pytest.fixture
def shell(installation):
    """Run Python code in a management command that has these settings."""

    def shell(code, **environment):
        return manage({**installation.environ, **environment}, "shell", "--no-imports", "-c", code)

    return shell


@pytest.fixture
def owed(installation):
    """Tell which files are still to be announced."""
    names = "SELECT filename FROM notifications_debt WHERE owed_since IS NOT NULL"
    return lambda: {name for (name,) in installation.database.query(names)}


@pytest.fixture
def fleet(tmp_path):
    """A directory of configurations to be imported."""

    directory = tmp_path / "fleet"
    directory.mkdir()

    def fleet(count):
        for number in range(count):
            (directory / f"aa-bb-cc-00-00-{number:02x}.json").write_text("{}")
        return str(directory)

    return fleet


@pytest.fixture
def black_hole():
    """The URL of a host that does not answer: a connection to it is neither made nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as waiting:
        waiting.connect(server.getsockname())  # takes the only place in the queue
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def url_of(make_broker, black_hole, nobody):
    """The URL of a broker that does not answer, by the kind of trouble."""

    def url_of(trouble):
        if trouble == "frozen":
            broker = make_broker()
            broker.freeze()
            return broker.url
        # The unknown name is too long for the domain name system, so that no name server is asked.
        return {"refused": nobody, "silent": black_hole, "unknown host": f"mqtt://{'broker.' * 40}invalid"}[trouble]

    return url_of


def pids_of(client_ids):
    return {client_id.split("-")[-2] for client_id in client_ids}


def client_ids_after_goodbyes(broker, count):
    """The connections of so many processes, when all of these have taken their leave."""

    def said_goodbye():
        return pids_of(re.findall(r"Received DISCONNECT from (iotsupport-\S+)", broker.log))

    eventually(lambda: len(said_goodbye()) >= count, lambda: broker.log)
    client_ids = re.findall(r"New client connected from \S+ as (iotsupport-\S+)", broker.log)
    assert pids_of(client_ids) == said_goodbye()
    return client_ids


def test_commands_deliver_before_they_end_each_as_a_client_of_its_own(make_broker, shell):
    broker = make_broker()
    with Subscriber(broker.port) as subscriber:
        for _ in range(2):
            shell(NO_HURRY + SAVE, MQTT_URL=broker.url)

            assert subscriber.next().payload == ANNOUNCED
    client_ids = client_ids_after_goodbyes(broker, 2)
    assert len(pids_of(client_ids)) == 2
    assert len(set(client_ids)) == len(client_ids)


def test_an_import_delivers_before_it_ends(scripted_broker, shell, owed, fleet):
    code = NO_HURRY + IMPORT.format(directory=fleet(100))
    shell(code, MQTT_URL=scripted_broker.url, MQTT_PUBLISH_RATE="10000")

    assert len(set(scripted_broker.heard)) == len(scripted_broker.heard) == 100
    assert owed() == set()


def test_an_import_tries_for_a_bounded_time_and_leaves_the_rest_owed(scripted_broker, shell, owed, fleet):
    code = NOTED + IMPORT.format(directory=fleet(40)) + UNTIL_ONE_IS_ANNOUNCED
    # At one a second: none is imported as slowly as that.
    done = shell(code, MQTT_URL=scripted_broker.url, MQTT_PUBLISH_RATE="1")
    announced, left = set(scripted_broker.heard), owed()

    assert len(announced | left) == 40
    assert announced
    assert left
    assert f"{len(left)} files are still to be announced: a server does it when it and the broker run" in done.stderr
    # A server, that is.
    shell(ANNOUNCE, MQTT_URL=scripted_broker.url)
    assert len(set(scripted_broker.heard)) == 40


@pytest.mark.both_databases
def test_a_forked_process_gets_its_own_connection(make_broker, shell):
    code = """
import os
from django.db import connection
from devices.models import DeviceConfig
from notifications.publisher import publisher

def save(name):
    DeviceConfig.objects.update_or_create(mac_address=f"aa-bb-cc-dd-ee-{name}", defaults={"content": "{}"})

save("00")
connection.close()
child = os.fork()
save("01" if child else "02")
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    publisher.stop()
    os._exit(0)
save("03")
"""
    broker = make_broker()
    with Subscriber(broker.port) as subscriber:
        shell(NO_HURRY + code, MQTT_URL=broker.url)
        payloads = {message.payload for message in subscriber.take(4)}

    assert payloads == {b'{"filename": "aa-bb-cc-dd-ee-0%d.json"}' % number for number in range(4)}
    client_ids = client_ids_after_goodbyes(broker, 2)
    assert len(pids_of(client_ids)) == 2
    assert len(set(client_ids)) == len(client_ids)


def test_a_forked_process_stays_off_where_its_parent_is(shell):
    code = """
import os
from notifications.publisher import publisher
child = os.fork()
if not child:
    os._exit(publisher.state() != "off")
print(os.waitpid(child, 0)[1])
"""
    assert shell(code).stdout == "0\n"


def test_the_connection_state_is_that_of_the_worst_process(shared_broker, nobody, shell, tmp_path):
    code = f"""
import os, sys
from django.conf import settings
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from notifications.publisher import publisher

registry = CollectorRegistry()
MultiProcessCollector(registry)

def report(title):
    names = ["mqtt_enabled", "mqtt_connection_state"]
    print(title, *[registry.get_sample_value(name) for name in names], flush=True)

from iotsupport.tests.support.waiting import poll
poll(lambda: registry.get_sample_value("mqtt_connection_state"), lambda value: value == 1)
report("one")
settings.MQTT_URL = {nobody!r}
if not os.fork():
    report("two")
    sys.exit()
os.wait()
report("one again")
"""
    output = shell(code, MQTT_URL=shared_broker.url, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout

    assert output.splitlines() == ["one 1.0 1.0", "two 1.0 0.0", "one again 1.0 1.0"]
    # Nor do ended commands count as workers that are disconnected.
    assert not list(tmp_path.glob("gauge_live*"))


@pytest.mark.parametrize("trouble", ["refused", "silent", "frozen", "unknown host"])
def test_a_command_saves_and_ends_although_the_broker_does_not_answer(trouble, url_of, shell, owed):
    result = shell(NOTED + SAVE, MQTT_URL=url_of(trouble))

    assert result.stdout.endswith("1 saved, 1 owed\n")
    assert "1 file is still to be announced" in result.stderr
    assert owed() == {"aa-bb-cc-dd-ee-ff.json"}


@pytest.mark.parametrize("trouble", ["silent", "frozen"])
def test_a_command_with_nothing_to_say_does_not_wait_for_the_broker(trouble, url_of, installation):
    # It fails unless it ends with success, within the limit.
    manage({**installation.environ, "MQTT_URL": url_of(trouble)}, "check")


def test_a_command_ends_during_a_name_lookup(shell):
    code = """
import socket, threading
socket.getaddrinfo = lambda *args, **kwargs: threading.Event().wait()
from django.conf import settings
from notifications.publisher import publisher
settings.MQTT_URL = "mqtt://broker"
publisher.start()
"""
    # It fails unless it ends with success, within the limit.
    assert "1 file is still to be announced" in shell(NOTED + code + SAVE).stderr


def test_a_command_trusts_only_the_given_authority(make_broker, certificates, shell):
    broker = make_broker(certificates=certificates)

    result = shell(UNTIL_TROUBLE_IS_KNOWN + SAVE, MQTT_URL=broker.url)

    assert "1 saved, 1 owed" in result.stdout
    assert result.stderr.count("cannot be reached: [SSL: CERTIFICATE_VERIFY_FAILED]") == 1


def test_a_command_runs_with_a_broken_url(shell):
    result = shell(SAVE, MQTT_URL="mqtt://me:hunter2@:1883")

    assert result.stdout.endswith("1 saved, 0 owed\n")
    assert result.stderr.count("MQTT_URL names no host.") == 1
    assert "hunter2" not in result.stderr


@pytest.mark.usefixtures("transactional_db")
def test_threads_of_one_process_share_a_connection(scripted_broker, start):
    start(scripted_broker.url)

    def save(thread):
        for number in range(5):
            save_config(16 * thread + number)
        connection.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(save, range(4)))
    wait_until_announced()

    assert len(set(scripted_broker.heard)) == 20
    assert scripted_broker.connections == 1
