"""Whom the connection to the broker trusts: the same on every version of Python."""

import ssl
import subprocess

import pytest

from notifications.broker import trust

pytestmark = pytest.mark.processes

STRICT = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN

CONFIG = """\
[ca]
default_ca = authority
[authority]
database = {directory}/index.txt
new_certs_dir = {directory}
rand_serial = yes
default_md = sha256
policy = policy
[policy]
commonName = supplied
[broker]
subjectAltName = IP:127.0.0.1
[other]
subjectAltName = DNS:other.example
[intermediate]
basicConstraints = critical,CA:TRUE
"""

# Of what openssl issues: from when, until when.
VALID = ("20260101000000Z", "20860101000000Z")
PAST = ("20200101000000Z", "20210101000000Z")
FUTURE = ("20850101000000Z", "20860101000000Z")


@pytest.fixture(params=[False, True], ids=["as up to 3.12", "as from 3.13 on"], autouse=True)
def python(request, monkeypatch):
    """What :func:`ssl.create_default_context` is strict about on this version of Python, and on the others."""
    create = ssl.create_default_context

    def create_like_it(**options):
        context = create(**options)
        context.verify_flags = context.verify_flags | STRICT if request.param else context.verify_flags & ~STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", create_like_it)


def openssl(*options):
    subprocess.run(["openssl", *map(str, options)], check=True, capture_output=True)


@pytest.fixture
def issue(tmp_path):
    """Let an authority issue a certificate; returns its file and that of its key."""

    def issue(name, ca_file, ca_key, *, extensions="broker", valid=VALID):
        config, request = tmp_path / "openssl.conf", tmp_path / "request.pem"
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        config.write_text(CONFIG.format(directory=tmp_path))
        (tmp_path / "index.txt").touch()
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]
        openssl("req", "-new", *new_key, "-subj", f"/CN={name}", "-out", request)
        dates = ["-startdate", valid[0], "-enddate", valid[1]]
        issuer = ["-cert", ca_file, "-keyfile", ca_key, "-extensions", extensions]
        openssl("ca", "-batch", "-notext", "-config", config, *issuer, *dates, "-in", request, "-out", certificate)
        return certificate, key

    return issue


@pytest.fixture
def authority(certificates):
    return certificates.ca_file, certificates.ca_file.with_suffix(".key")


def connect(context, certificate, key):
    """Shake hands with a broker that has this certificate, in memory. Raises ``ssl.SSLCertVerificationError``."""
    broker_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    broker_context.load_cert_chain(certificate, key)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname="127.0.0.1")
    broker = broker_context.wrap_bio(there, back, server_side=True)
    waiting = [client, broker]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)


def refusal(ca_file, certificate, key):
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        connect(trust(str(ca_file)), certificate, key)
    return caught.value.verify_message


def test_takes_an_authority_as_everybody_makes_it(certificates):
    """``openssl req -x509`` gives it no key usage."""
    connect(trust(str(certificates.ca_file)), certificates.certificate, certificates.key)


def test_takes_an_authority_that_another_has_issued(authority, issue):
    """Named without the other."""
    intermediate = issue("intermediate", *authority, extensions="intermediate")

    connect(trust(str(intermediate[0])), *issue("broker", *intermediate))


def test_takes_the_own_certificate_of_a_broker(tmp_path):
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate]
    openssl("req", "-x509", *new, "-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1")

    connect(trust(str(certificate)), certificate, key)


def test_refuses_whom_another_authority_has_issued(authority, issue, tmp_path):
    other, key = tmp_path / "other.pem", tmp_path / "other.key"
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", other]
    openssl("req", "-x509", *new, "-subj", "/CN=Another authority")

    assert refusal(authority[0], *issue("broker", other, key)) == "unable to get local issuer certificate"


def test_refuses_another_name(authority, issue):
    found = refusal(authority[0], *issue("broker", *authority, extensions="other"))

    assert found.startswith("IP address mismatch")


@pytest.mark.parametrize(
    ("valid", "reason"), [(PAST, "certificate has expired"), (FUTURE, "certificate is not yet valid")]
)
def test_refuses_a_certificate_out_of_its_time(authority, issue, valid, reason):
    assert refusal(authority[0], *issue("broker", *authority, valid=valid)) == reason


@pytest.mark.parametrize("python", [True], indirect=True)
def test_is_as_strict_as_ever_where_no_authority_is_named():
    assert trust("").verify_flags & STRICT == STRICT
