"""The certificate that we show: which files hold it, what opens its key, and the words when that fails."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from bulkmail.model.errors import ConfigError
from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Relay, Secret
from bulkmail.smtp.opening import make_tls_context, tls_breakage


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with good.pem and its keys, plain and locked by "hunter2", another's key, and both in one file."""
    issuer = trustme.CA()
    good, other = issuer.issue_cert("shop@example.com"), issuer.issue_cert("other@example.com")
    certificate, key = good.cert_chain_pems[0].bytes(), good.private_key_pem.bytes()
    (tmp_path / "good.pem").write_bytes(certificate)
    (tmp_path / "good.key").write_bytes(key)
    (tmp_path / "both.pem").write_bytes(key + certificate)
    (tmp_path / "other.key").write_bytes(other.private_key_pem.bytes())
    (tmp_path / "text").write_text("hello")
    locked = serialization.load_pem_private_key(key, password=None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2"),
    )
    (tmp_path / "locked.key").write_bytes(locked)
    return tmp_path


def relay(files: Path, certificate: str, key: str = "") -> Relay:
    query = f"client_certificate={files / certificate}" + (f"&client_key={files / key}" if key else "")
    return Relay.parse(f"smtps://mail.example.com?{query}")


@pytest.mark.parametrize(
    ("certificate", "key", "password"),
    [("good.pem", "good.key", None), ("both.pem", "", None), ("good.pem", "locked.key", Secret("hunter2"))],
)
def test_certificate_is_loaded(files: Path, certificate: str, key: str, password: Secret | None) -> None:
    assert isinstance(make_tls_context(relay(files, certificate, key), password), ssl.SSLContext)


@pytest.mark.parametrize(
    ("certificate", "key", "password", "words"),
    [
        ("good.pem", "other.key", None, "is not the key of the certificate"),
        ("good.pem", "locked.key", None, "is locked with a password"),
        ("good.pem", "locked.key", Secret("hunter3"), "cannot be opened with its password"),
        ("good.pem", "locked.key", Secret("hunter2" * 1000), "the password of key .* is too long"),
        ("good.pem", "", None, "do not hold a certificate and its key"),
        ("text", "good.key", None, "do not hold a certificate and its key"),
        ("good.pem", "text", None, "do not hold a certificate and its key"),
        ("missing", "good.key", None, "cannot be read: No such file"),
    ],
)
def test_certificate_that_cannot_be_used_is_named(
    files: Path, certificate: str, key: str, password: Secret | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_tls_context(relay(files, certificate, key), password)
    assert "hunter" not in f"{caught.value} {caught.value.hint}"
    assert str(files) in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "wants a certificate of ours"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not accept the certificate"),
    ],
)
def test_words_for_a_server_that_does_not_like_ours(reason: str, words: str) -> None:
    error = ssl.SSLError("broken")
    error.reason = reason
    kind, what = tls_breakage(error, host="mail.example.com", port=465)
    assert kind is Breakage.TLS
    assert words in what
