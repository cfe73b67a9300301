"""How a server is spoken to over TLS: what is trusted, what a failed handshake says, and where TLS begins."""

from __future__ import annotations

import asyncio
import ssl

from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Relay, Secret, Tls
from bulkmail.smtp.dialling import DialError, reach
from bulkmail.text import printable

# OpenSSL's X509_V_ERR_…
_EXPIRED, _NOT_YET_VALID, _WRONG_NAME, _WRONG_IP_ADDRESS = 10, 9, 62, 64
_SELF_SIGNED = 18
_UNKNOWN_ISSUER = {2, 19, 20, 21}

# The alerts in which a server says what it thinks of our certificate (RFC 8446 §6.2).
_NO_CERTIFICATE = {"TLSV13_ALERT_CERTIFICATE_REQUIRED"}
_BAD_CERTIFICATE = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "TLSV1_ALERT_UNKNOWN_CA",
}


def make_tls_context(relay: Relay, key_password: Secret | None = None) -> ssl.SSLContext:
    """A context that verifies the server, TLS 1.2 or newer; by `relay.ca_file` only, if given, else the system's store.

    It shows the server `relay.client_certificate`, if there is one; `key_password` opens that one's key.
    Reads files and takes some milliseconds: make one for all sessions.  Raises `ConfigError`.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=relay.ca_file or None)
    except ssl.SSLError:
        raise ConfigError(
            f"ca_file: {relay.ca_file} holds no certificate that can be read", hint="give a file of PEM certificates"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"ca_file: {relay.ca_file} cannot be read: {error.strerror}",
            hint="check ca_file= in the relay URL, or leave it out to trust what the system trusts",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if relay.client_certificate:
        _show(context, relay, key_password)
    return context


def _show(context: ssl.SSLContext, relay: Relay, key_password: Secret | None) -> None:
    key = relay.client_key or relay.client_certificate
    asked: list[bool] = []

    def password() -> str:  # without one of ours, OpenSSL would ask at the terminal
        asked.append(True)
        return key_password.reveal() if key_password else ""

    try:
        context.load_cert_chain(relay.client_certificate, relay.client_key or None, password=password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what, fix = "is not the key of the certificate", "give the two that were made together"
        elif asked and key_password is None:
            what, fix = "is locked with a password", "write client_key_password_file, _env or _command into [relay]"
        elif asked:
            what, fix = "cannot be opened with its password", "check where client_key_password_… takes it from"
        else:
            what, fix = "do not hold a certificate and its key", "give files in PEM form"
        raise ConfigError(f"client_certificate {relay.client_certificate}, key {key}: {what}", hint=fix) from None
    except OSError as error:
        raise ConfigError(
            f"client_certificate {relay.client_certificate} or key {key} cannot be read: {error.strerror}",
            hint="check the names and that you may read the files",
        ) from None
    except ValueError:  # a password that is longer than OpenSSL takes
        raise ConfigError(f"client_certificate: the password of key {key} is too long") from None


def tls_breakage(error: ssl.SSLError, *, host: str, port: int) -> tuple[Breakage, str]:
    """What a failed handshake was about, as a kind and a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        is_elsewhere = error.verify_code in (_WRONG_NAME, _WRONG_IP_ADDRESS)
        return Breakage.WRONG_NAME if is_elsewhere else Breakage.UNTRUSTED, _certificate_words(error, host=host)
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
        return Breakage.WRONG_TLS, (
            f"{host} port {port} does not speak TLS from the first byte; smtp:// instead of smtps:// begins without"
        )
    if error.reason in _NO_CERTIFICATE:
        return Breakage.TLS, (
            f"{host} port {port} wants a certificate of ours and was shown none;"
            " client_certificate= in the relay URL names it"
        )
    if error.reason in _BAD_CERTIFICATE:
        return Breakage.TLS, f"{host} port {port} does not accept the certificate that client_certificate= names"
    if error.reason and ("PROTOCOL" in error.reason or "VERSION" in error.reason):
        return Breakage.TLS, f"{host} port {port} and we have no TLS version in common; we need 1.2 or newer"
    return (
        Breakage.TLS,
        f"the TLS handshake with {host} port {port} failed: {printable(error.reason or 'no reason given', 80)}",
    )


def _certificate_words(error: ssl.SSLCertVerificationError, *, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the certificate of {host} has expired"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet; check the clock of this computer"
    if code in (_WRONG_NAME, _WRONG_IP_ADDRESS):
        return f"the certificate that {host} shows is for another name; the relay URL must name the host it is for"
    if code == _SELF_SIGNED:
        return f"the certificate of {host} is vouched for only by itself; ca_file= in the relay URL can name it as good"
    if code in _UNKNOWN_ISSUER:
        return f"the certificate of {host} is from an issuer unknown here; ca_file= in the relay URL can name it"
    return f"the certificate of {host} cannot be trusted: {printable(error.verify_message, 80)}"


def relay_url(relay: Relay, port: int, *, is_implicit: bool = False) -> str:
    """The URL of `relay` at another port, with TLS from the first byte or without."""
    host = f"[{relay.host}]" if ":" in relay.host else relay.host
    user = f"{relay.username}@" if relay.username else ""
    return f"{'smtps' if is_implicit else 'smtp'}://{user}{host}:{port}"


def wrong_mode(relay: Relay) -> tuple[str, str]:
    """What is wrong when the port of `relay` speaks in the other way, and the fix."""
    if relay.tls is Tls.IMPLICIT:
        return (
            f"{relay.place} begins without TLS, and was spoken to with TLS from the first byte",
            f"write {relay_url(relay, relay.port)}, which goes over to TLS before anything is said",
        )
    return (
        f"{relay.place} speaks TLS from the first byte, and was spoken to without",
        f"write {relay_url(relay, relay.port, is_implicit=True)}",
    )


def trusting() -> ssl.SSLContext:
    """A context that believes any certificate: for looking at one, never for saying anything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def speaks_tls(relay: Relay, proxy_password: Secret | None, *, timeout: float) -> bool:  # noqa: ASYNC109
    """Whether another connection to `relay` can be opened with TLS from the first byte, with any certificate."""
    try:
        async with asyncio.timeout(timeout):
            connection = await reach(relay, proxy_password, timeout=timeout)
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, sock=connection, ssl=trusting(), server_hostname=relay.host
            )
    except (DialError, OSError, TimeoutError):  # SSLError is an OSError
        return False
    transport.abort()
    return True
