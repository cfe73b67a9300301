"""SCRAM-SHA-256 and the preparation of names and passwords, against the RFCs' own examples and any hostile server."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.smtp.login import FEWEST_ITERATIONS, MOST_ITERATIONS, Scram, ScramError, saslprep

NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def scram(username: str = "user", password: str = "pencil") -> Scram:  # noqa: S107 - the RFC's own
    return Scram(username, password, nonce=NONCE)


def test_scram_speaks_as_in_rfc_7677() -> None:
    login = scram()
    assert login.first == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert login.answer(CHALLENGE) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert login.verify(FINAL)


def test_scram_believes_no_other_signature() -> None:
    login = scram()
    assert not login.verify(FINAL)  # nothing was asked yet
    login.answer(CHALLENGE)
    for final in (b"", b"v=", b"v=AAAA", FINAL[:-2], FINAL.replace(b"6", b"7", 1), b"e=other-error", b"x" + FINAL[1:]):
        assert not login.verify(final)
    assert login.verify(FINAL + b",x=extension")


def test_scram_escapes_the_name_and_prepares_it() -> None:
    assert scram("a=b,c\u00ad").first == b"n,,n=a=3Db=2Cc,r=" + NONCE.encode()


@pytest.mark.parametrize(
    "challenge",
    [
        pytest.param(CHALLENGE.replace(b"r=rO", b"r=rP"), id="another nonce"),
        pytest.param(b"r=" + NONCE.encode() + b",s=W22ZaJ0S,i=4096", id="nothing added to the nonce"),
        pytest.param(CHALLENGE.replace(b"4096", b"4095"), id="too few iterations"),
        pytest.param(CHALLENGE.replace(b"4096", b"2000001"), id="too many iterations"),
        pytest.param(CHALLENGE.replace(b"4096", b"9" * 5000), id="a number without end"),
        pytest.param(CHALLENGE.replace(b"4096", b"04096"), id="leading zero"),
        pytest.param(CHALLENGE.replace(b"4096", b"-1"), id="negative"),
        pytest.param(CHALLENGE.replace(b"s=W22Z", b"s=W2Z"), id="salt that is not base64"),
        pytest.param(b"m=must-know," + CHALLENGE, id="mandatory extension"),
        pytest.param(b"e=other-error", id="error"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"", id="empty"),
    ],
)
def test_scram_answers_no_bad_challenge(challenge: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hashlib, "pbkdf2_hmac")  # it is refused before any hashing
    with pytest.raises(ScramError) as caught:
        scram().answer(challenge)
    assert "pencil" not in str(caught.value)


def test_scram_takes_its_limits() -> None:
    scram().answer(CHALLENGE.replace(b"4096", str(FEWEST_ITERATIONS).encode()))
    assert MOST_ITERATIONS >= 600_000  # what careful servers ask for today


@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda text: b"r=" + NONCE.encode() + text.encode()))
def test_scram_survives_any_challenge(challenge: bytes) -> None:
    login = scram()
    with contextlib.suppress(ScramError):
        login.answer(challenge)
    assert not login.verify(challenge)


@pytest.mark.parametrize(
    ("name", "password"), [("user", "🐴"), ("user", "a\u0007"), ("", "pencil"), ("user", "\u00ad")]
)
def test_scram_cannot_be_used_with_what_has_no_form(name: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"in it|left of it") as caught:
        scram(name, password)
    assert password not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_saslprep_prepares_as_in_rfc_4013(text: str, prepared: str) -> None:
    assert saslprep(text, is_stored=True) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "\u0627a\u0627", "\ue000", "\ud800"])
def test_saslprep_refuses_as_in_rfc_4013(text: str) -> None:
    with pytest.raises(ValueError, match="it"):
        saslprep(text, is_stored=False)


def test_saslprep_allows_new_characters_in_queries_only() -> None:
    assert saslprep("ann🐴", is_stored=False) == "ann🐴"
    with pytest.raises(ValueError, match="newer"):
        saslprep("ann🐴", is_stored=True)


@given(st.text(max_size=20))
def test_saslprep_comes_to_rest(text: str) -> None:
    try:
        prepared = saslprep(text, is_stored=True)
    except ValueError:
        return
    assert saslprep(prepared, is_stored=True) == prepared


def test_nonce_is_fresh_and_has_no_comma() -> None:
    from bulkmail.model.relay import Secret
    from bulkmail.smtp.login import with_password

    firsts = set()
    for _ in range(50):
        mechanism = with_password("user", Secret("pencil"), offered=["SCRAM-SHA-256"], is_secure=True)
        assert mechanism is not None
        assert mechanism.first is not None
        nonce = mechanism.first.removeprefix(b"n,,n=user,r=")
        assert len(nonce) >= 24
        assert b"," not in nonce
        base64.urlsafe_b64decode(nonce)
        firsts.add(nonce)
    assert len(firsts) == 50
