"""TLS: HTTPS and gRPC with a certificate, and certificates that cannot be used."""

import http.client
import logging
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from serve.protocols.oip.oip_messages import SERVICE, message
from serve.tls import ServerTls, tls_from
from spd_deploy.domain.errors import BadSetting
from tests.serve.certificates import Pair, openssl, pair
from tests.serve.fakes import PATIENCE_S, FakeSession, fake_served
from tests.serve.wire import Wire, listening


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate and its key."""
    return pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(good: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """A server with TLS, over gRPC too."""
    served = fake_served(tmp_path_factory.mktemp("fake"), FakeSession())
    tls = ServerTls(good.certificate, good.key)
    with listening(served, grpc_address=("127.0.0.1", 0), tls=tls) as found:
        yield found


def certificate_of(port: int, trusted: Path) -> bytes | None:
    """The certificate that a server shows to a client that trusts this one."""
    context = ssl.create_default_context(cafile=str(trusted))
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        return connection.getpeercert(binary_form=True)


def test_https_is_answered_to_who_trusts_the_certificate(secure: Wire, good: Pair) -> None:
    """A client that checks certificate and host gets its answer, and the page names https."""
    context = ssl.create_default_context(cafile=str(good.certificate))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", secure.port, context=context, timeout=PATIENCE_S
    )
    connection.request("GET", "/readyz")
    assert connection.getresponse().read() == b'{"status":"ready"}'
    connection.request("GET", "/docs")
    assert f"curl https://127.0.0.1:{secure.port}/" in connection.getresponse().read().decode()
    connection.close()

    with pytest.raises(ssl.SSLCertVerificationError):
        certificate_of(secure.port, pair(good.key.parent, "stranger").certificate)


def test_grpc_has_the_same_certificate(secure: Wire, good: Pair) -> None:
    """A channel that trusts the certificate is answered."""
    credentials = grpc.ssl_channel_credentials(good.certificate.read_bytes())
    with grpc.secure_channel(secure.state.grpc_address, credentials) as channel:
        sent = channel.unary_unary(
            f"/{SERVICE}/ServerLive",
            request_serializer=message("ServerLiveRequest").SerializeToString,
            response_deserializer=message("ServerLiveResponse").FromString,
        )

        assert sent(message("ServerLiveRequest")(), timeout=PATIENCE_S).live


def test_a_renewed_certificate_is_used_for_new_connections(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that change are read while the server runs; broken ones leave the old certificate."""
    first, second = pair(tmp_path, "first"), pair(tmp_path, "second")
    used = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    shutil.copy(first.certificate, used.certificate)
    shutil.copy(first.key, used.key)
    tls = ServerTls(used.certificate, used.key)

    with listening(fake_served(tmp_path, FakeSession()), tls=tls) as wire:
        assert certificate_of(wire.port, first.certificate)
        shutil.copy(second.certificate, used.certificate)
        shutil.copy(second.key, used.key)
        tls.refresh()
        assert certificate_of(wire.port, second.certificate)

        with caplog.at_level(logging.ERROR):
            used.key.write_text("nonsense", encoding="utf-8")
            tls.refresh()
        assert "stays as it was" in caplog.text
        assert certificate_of(wire.port, second.certificate)


def files_of(kind: str, folder: Path) -> Pair:
    """A pair with a fault of this kind."""
    made = pair(folder, days=-1 if kind == "expired" else 2)
    match kind:
        case "another's key":
            return Pair(made.certificate, pair(folder, "other").key)
        case "an rsa key":
            openssl("genrsa", "-out", folder / "rsa.pem", 2048)
            return Pair(made.certificate, folder / "rsa.pem")
        case "swapped":
            return Pair(made.key, made.certificate)
        case "encrypted":
            openssl("pkey", "-in", made.key, "-aes128", "-passout", "pass:x",
                    "-out", folder / "encrypted.pem")  # fmt: skip
            return Pair(made.certificate, folder / "encrypted.pem")
        case "missing":
            return Pair(folder / "nowhere.pem", made.key)
        case _:
            return made


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("expired", "certificate has expired; renew it"),
        ("another's key", "a key that is not the certificate's"),
        ("an rsa key", "a key that is not the certificate's"),
        ("swapped", "a file that is not PEM, or an encrypted key"),
        ("encrypted", "a file that is not PEM, or an encrypted key"),
        ("missing", "No such file or directory"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, kind: str, told: str) -> None:
    """Before the server takes its port, and in one line with the reason."""
    files = files_of(kind, tmp_path)

    with pytest.raises(BadSetting) as refused:
        tls_from(files.certificate, files.key)

    assert told in str(refused.value)


def test_one_file_alone_is_refused(good: Pair) -> None:
    """A certificate needs its key and a key its certificate; neither is no TLS."""
    assert tls_from(None, None) is None
    with pytest.raises(BadSetting, match="--tls-certificate is given without --tls-key"):
        tls_from(good.certificate, None)
    with pytest.raises(BadSetting, match="--tls-key is given without --tls-certificate"):
        tls_from(None, good.key)
