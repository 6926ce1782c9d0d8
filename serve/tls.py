"""TLS: a certificate and its key, tried by a handshake before the server uses them.

The files may be replaced while the server runs: new connections then use the new certificate.
"""

import logging
import ssl
from pathlib import Path

from serve.file_stamp import stamp_of
from spd_deploy.domain.errors import BadSetting

_log = logging.getLogger(__name__)
_FIX = "give a PEM certificate with its chain, and its unencrypted key"
_STEPS = 10  # more than a handshake has
# What OpenSSL says in words that tell little.
_REASONS = {
    "NO_CERTIFICATE_ASSIGNED": "a key that is not the certificate's",
    "KEY_VALUES_MISMATCH": "a key that is not the certificate's",
    "PEM_LIB": "a file that is not PEM, or an encrypted key",
}


class ServerTls:
    """The certificate and key of one server."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read and try them.

        Raises:
            BadSetting: one cannot be read, they do not fit each other, or the certificate is
                expired, not valid yet, or too weak.
        """
        self.certificate, self.key = certificate, key
        self._stamp = stamp_of(certificate, key)
        self.pem = _tried(certificate, key)
        self.context = _context_of(certificate, key)

    def refresh(self) -> None:
        """Use the files as they are now, if they changed."""
        if stamp_of(self.certificate, self.key) != self._stamp:
            self.reload()

    def reload(self) -> None:
        """Use the files as they are now; if they cannot be used, log why and keep the old ones."""
        self._stamp = stamp_of(self.certificate, self.key)
        try:
            self.pem = _tried(self.certificate, self.key)
            self.context.load_cert_chain(self.certificate, self.key)
        except (BadSetting, OSError) as err:
            _log.error("the TLS certificate stays as it was: %s", err)
            return
        _log.warning("the TLS certificate was read from %s", self.certificate)


def tls_from(certificate: Path | None, key: Path | None) -> ServerTls | None:
    """The TLS of a server that was given these files; None for neither.

    Raises:
        BadSetting: only one was given, or they cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, lacks = ("--tls-key", "--tls-certificate") if certificate is None else (
            "--tls-certificate", "--tls-key"
        )  # fmt: skip
        raise BadSetting(f"{given} is given without {lacks}", fix="give both or none")
    return ServerTls(certificate, key)


def _tried(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """The bytes of the key and of the certificate, if a client completes a handshake with them."""
    pem = tuple(_read(file) for file in (key, certificate))
    try:
        context = _context_of(certificate, key)
        trusting = _client_of(certificate)
    except (ssl.SSLError, ValueError) as err:
        raise BadSetting(
            f"{certificate} and {key} are no TLS certificate and its key",
            got=_reason_of(err),
            fix=_FIX,
        ) from err
    try:
        _shake_hands(context, trusting)
    except ssl.SSLError as err:
        raise BadSetting(
            f"clients would refuse the TLS certificate {certificate}",
            got=_reason_of(err),
            fix="renew it",
        ) from err
    return pem[0], pem[1]


def _context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context. An encrypted key is an error, where OpenSSL would ask for a password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key, password=lambda: "")
    return context


def _client_of(certificate: Path) -> ssl.SSLContext:
    """The context of a client that trusts this very certificate, whoever signed it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Complete a handshake in memory.

    Raises:
        ssl.SSLError: either side refuses the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="server"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(ends)
    for _ in range(_STEPS):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as err:
        raise BadSetting(f"cannot read {file}", got=err.strerror, fix=_FIX) from err


def _reason_of(err: Exception) -> str:
    """The reason by OpenSSL, without its places in its source."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return err.verify_message
    if not isinstance(err, ssl.SSLError):
        return str(err)
    reason = err.reason or ("PEM_LIB" if "PEM lib" in str(err) else str(err))
    return _REASONS.get(reason, reason.replace("_", " ").lower())
