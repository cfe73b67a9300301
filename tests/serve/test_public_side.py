"""The public side: GET changes nothing, one POST opts out, and no webhook is believed without its proof."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook as Standard

from bulkmail.feedback.matching import Matcher
from bulkmail.message.unsubscribe import make_token
from bulkmail.model.errors import SuppressionError
from bulkmail.model.feedback_event import FeedbackKind, KnownRun
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret
from bulkmail.model.suppression import SuppressionReason
from bulkmail.outbox.lookup import FoundDelivery
from bulkmail.serve.proofs import Webhook
from bulkmail.serve.public_app import PublicSide, make_app, masked
from bulkmail.serve.writer import Writer
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.ports import EntryQuery

KEY = "0123456789abcdef0123"
ANN = Address("ann", "example.org")
EVERYTHING = EntryQuery()
FORM = {"content-type": "application/x-www-form-urlencoded"}
ONE_CLICK = b"List-Unsubscribe=One-Click"
NOW = time.time()
MESSAGE_ID = "<1.run@example.com>"


class Answer:
    """What the application answered."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()


Ask = Callable[..., Any]


class Runs:
    """One run with one delivery, as the register and the outboxes know it."""

    def find(self, **wanted: Any) -> list[FoundDelivery]:
        if MESSAGE_ID not in wanted.get("message_ids", ()):
            return []
        return [
            FoundDelivery(
                id=7, row=3, forward_path="ann@example.org", message_id=MESSAGE_ID, first_at=NOW - 60, was_sent=True
            )
        ]


class Elsewhere:
    """A store that may be told to be busy."""

    def __init__(self, store: SqliteSuppressions) -> None:
        self.store = store
        self.is_busy = False

    def __getattr__(self, name: str) -> Any:
        if self.is_busy and name == "record":
            raise SuppressionError("the suppression list is in use by another program")
        return getattr(self.store, name)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with SqliteSuppressions(tmp_path / "suppressions.db") as opened:
        yield Elsewhere(opened)


@pytest.fixture
def certificate() -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return key, made.public_bytes(Encoding.PEM)


TOPIC = "arn:aws:sns:eu-west-1:1234:ses"
HOOKS = {
    "ses": Webhook("ses", topics=(TOPIC,)),
    "mailgun": Webhook("mailgun", Secret("mailgun-signing-key")),
    "postmark": Webhook("postmark", Secret("a-secret-of-postmark")),
    "standard": Webhook("standard", Secret("whsec_" + b64encode(b"standard-secret-key-of-32-bytes!").decode())),
}


@pytest.fixture
async def ask(store: Elsewhere, certificate: tuple[rsa.RSAPrivateKey, bytes]) -> AsyncIterator[Ask]:
    """Asks the application as a server does."""
    fetched: list[str] = []

    def fetch(address: str) -> bytes:
        fetched.append(address)
        return certificate[1]

    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(store.register, KnownRun(0, "run-1", "spring", "news", "/x.outbox", NOW - 3600)).result()
        token_key = thread.submit(store.token_key).result()

    def match(mails: Any) -> Any:
        return Matcher([run], token_key, look_in=lambda known: Runs()).match(mails)

    writer = Writer(store, match)  # type: ignore[arg-type]
    side = PublicSide(writer, keys=[Secret(KEY)], hooks=HOOKS, fetch=fetch)
    app = make_app(side, writer)

    async def ask(
        method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("192.0.2.77", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        sent: list[Any] = []
        pieces = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return pieces.pop(0) if pieces else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)  # type: ignore[arg-type]
        start, *rest = sent
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(each.get("body", b"") for each in rest))

    ask.side, ask.fetched = side, fetched  # type: ignore[attr-defined]
    task = asyncio.get_running_loop().create_task(writer.run())
    yield ask
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def reasons(store: Elsewhere, key: str = "ann@example.org") -> set[tuple[SuppressionReason, str]]:
    """Why, and for which list; from a thread, as no loop may wait for the disk."""
    with ThreadPoolExecutor(1) as thread:
        entries = thread.submit(store.store.history, key).result().entries
    return {(entry.reason, entry.scope) for entry in entries}


def events(store: Elsewhere, key: str = "ann@example.org") -> list[Any]:
    with ThreadPoolExecutor(1) as thread:
        return [stored.event for stored in thread.submit(store.store.history, key).result().events]


def path_of(address: Address = ANN, list_id: str = "news") -> str:
    return f"/u/{make_token(address, KEY.encode(), list_id=list_id)}"


# -- unsubscribing


@pytest.mark.slow
async def test_get_shows_a_page_and_changes_nothing(ask: Ask, store: Elsewhere) -> None:
    for method in ("GET", "HEAD") * 20:
        answer = await ask(method, path_of())
        assert answer.status == 200 and "set-cookie" not in answer.headers
    page = (await ask("GET", path_of())).text
    assert "ann@example.org" in page and "news" in page and '<form method="post">' in page
    assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"
    assert reasons(store) == set()


async def test_one_click_opts_out_of_the_list_at_once(ask: Ask, store: Elsewhere) -> None:
    answer = await ask("POST", path_of(), ONE_CLICK, FORM)
    assert answer.status == 200 and "location" not in answer.headers and "set-cookie" not in answer.headers
    assert reasons(store) == {(SuppressionReason.UNSUBSCRIBE, "news")}


async def test_one_click_may_be_multipart(ask: Ask, store: Elsewhere) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
    answer = await ask("POST", path_of(), body, {"content-type": "multipart/form-data; boundary=b"})
    assert answer.status == 200 and len(reasons(store)) == 1


async def test_token_of_before_lists_opts_out_of_all(ask: Ask, store: Elsewhere) -> None:
    assert "all our lists" in (await ask("GET", path_of(list_id=""))).text
    await ask("POST", path_of(list_id=""), ONE_CLICK, FORM)
    assert reasons(store) == {(SuppressionReason.UNSUBSCRIBE, "")}


async def test_same_click_again_writes_nothing(ask: Ask, store: Elsewhere) -> None:
    for _ in range(5):
        assert (await ask("POST", path_of(), ONE_CLICK, FORM)).status == 200
    assert len(events(store)) == 1


async def test_many_clicks_at_once_are_all_durable(ask: Ask, store: Elsewhere) -> None:
    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(ask, "POST", path_of(Address(f"p{number}", "example.org")), ONE_CLICK, FORM)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(store.store.count, EVERYTHING).result() == 100


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"", b"List-Unsubscribe=Two-Clicks", b"x" * 100, b"a=1&b=2"])
async def test_post_without_the_word_of_rfc_8058_does_nothing(ask: Ask, store: Elsewhere, body: bytes) -> None:
    assert (await ask("POST", path_of(), body, FORM)).status == 400
    assert reasons(store) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "token",
    ["q1w2", "a" * 60, make_token(ANN, b"another key of 16+"), path_of()[3:-1]],
    ids=["short", "long", "other-key", "cut"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_wrong_token_is_404(ask: Ask, store: Elsewhere, method: str, token: str) -> None:
    answer = await ask(method, f"/u/{token}", ONE_CLICK if method == "POST" else b"", FORM)
    assert answer.status == 404 and token not in answer.text and reasons(store) == set()


async def test_page_opts_out_and_takes_it_back(ask: Ask, store: Elsewhere) -> None:
    pressed = await ask("POST", path_of(), b"action=unsubscribe", FORM)
    assert pressed.status == 200 and "You are unsubscribed" in pressed.text
    assert len(reasons(store)) == 1
    back = await ask("POST", path_of(), b"action=undo", FORM)
    assert back.status == 200 and "subscribed again" in back.text and reasons(store) == set()
    assert (await ask("POST", path_of(), b"action=undo", FORM)).status == 409
    await ask("POST", path_of(), ONE_CLICK, FORM)
    assert len(reasons(store)) == 1


async def test_old_opt_out_is_not_taken_back(ask: Ask, store: Elsewhere) -> None:
    await ask("POST", path_of(), ONE_CLICK, FORM)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_make_old, store.store).result()
    assert (await ask("POST", path_of(), b"action=undo", FORM)).status == 409
    assert len(reasons(store)) == 1


def _make_old(store: SqliteSuppressions) -> None:
    with store._tables.writing() as connection:
        connection.execute("UPDATE entry SET since = since - 4000")


async def test_wish_that_cannot_be_stored_is_503(ask: Ask, store: Elsewhere) -> None:
    store.is_busy = True
    answer = await ask("POST", path_of(), ONE_CLICK, FORM)
    assert answer.status == 503 and answer.headers["retry-after"] == "30"
    store.is_busy = False
    assert (await ask("POST", path_of(), ONE_CLICK, FORM)).status == 200


async def test_body_that_is_too_long_is_refused(ask: Ask) -> None:
    assert (await ask("POST", path_of(), b"x" * 70_000, FORM)).status == 413
    assert (await ask("POST", "/hooks/mailgun", b"x" * 1_000_001)).status == 413


async def test_hostile_address_is_shown_as_text(ask: Ask) -> None:
    page = await ask("GET", path_of(Address("a&b", "example.org"), "<script>"))
    assert "<script>" not in page.text and "&lt;script&gt;" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/u/", "/hooks/sendgrid", "/hooks/", "/metrics", "/docs"])
async def test_other_paths_are_not_there(ask: Ask, path: str) -> None:
    assert (await ask("POST", path)).status in (404, 405)


async def test_log_and_numbers_hold_no_token(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bulkmail.serve")
    await ask("GET", path_of())
    await ask("POST", "/hooks/mailgun", b"{}")
    assert ask.side.counts == {("unsubscribe page", 200): 1, ("webhook", 401): 1}  # type: ignore[attr-defined]
    assert path_of()[3:] not in str([vars(record) for record in caplog.records])
    assert {getattr(record, "client", "192.0.2.0") for record in caplog.records} == {"192.0.2.0"}


def test_clients_are_masked() -> None:
    assert masked("192.0.2.77") == "192.0.2.0" and masked("2001:db8:1:2::3") == "2001:db8:1::" and masked("x") == ""


# -- webhooks


def sns(key: rsa.RSAPrivateKey, event: object, *, version: str = "2", **changes: str) -> bytes:
    reported = {
        "Type": "Notification",
        "MessageId": "m-1",
        "TopicArn": TOPIC,
        "Message": json.dumps(event),
        "Timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "SignatureVersion": version,
        "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
        **changes,
    }
    names = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
    signed = "".join(f"{name}\n{reported[name]}\n" for name in names if name in reported)
    algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()  # noqa: S303
    reported["Signature"] = b64encode(key.sign(signed.encode(), padding.PKCS1v15(), algorithm)).decode()
    return json.dumps(reported).encode()


def ses_bounce(kind: str = "Permanent", words: str = "smtp; 550 5.1.1 no such user") -> dict[str, Any]:
    return {
        "eventType": "Bounce",
        "mail": {"messageId": "ses-1", "headers": [{"name": "Message-ID", "value": MESSAGE_ID}]},
        "bounce": {
            "bounceType": kind,
            "bouncedRecipients": [{"emailAddress": "ann@example.org", "status": "5.1.1", "diagnosticCode": words}],
        },
    }


def mailgun(event: dict[str, Any], *, key: str = "mailgun-signing-key", at: float | None = None) -> bytes:
    stamp = str(int(time.time() if at is None else at))
    made = hmac.digest(key.encode(), f"{stamp}token".encode(), "sha256").hex()
    return json.dumps(
        {"signature": {"timestamp": stamp, "token": "token", "signature": made}, "event-data": event}
    ).encode()


MAILGUN_BOUNCE = {
    "event": "failed",
    "severity": "permanent",
    "recipient": "ann@example.org",
    "timestamp": NOW,
    "message": {"headers": {"message-id": MESSAGE_ID.strip("<>")}},
    "delivery-status": {"code": 550, "enhanced-code": "5.1.1", "message": "no such user"},
}
POSTMARK_COMPLAINT = {
    "RecordType": "SpamComplaint",
    "Email": "ann@example.org",
    "MessageID": "pm-1",
    "Content": f"Subject: x\nMessage-ID: {MESSAGE_ID}\n",
}


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"hook:{password}".encode()).decode()}


@pytest.mark.parametrize("version", ["1", "2"])
async def test_ses_bounce_is_proved_and_matched(
    ask: Ask, store: Elsewhere, certificate: tuple[rsa.RSAPrivateKey, bytes], version: str
) -> None:
    body = sns(certificate[0], ses_bounce(), version=version)
    assert (await ask("POST", "/hooks/ses", body)).status == 200
    assert reasons(store) == {(SuppressionReason.HARD, "")}
    assert (await ask("POST", "/hooks/ses", body)).status == 200
    (event,) = events(store)  # the service may call twice
    assert event.row == 3 and event.campaign == "spring" and event.words.endswith("no such user")
    assert len(ask.fetched) == 1  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"TopicArn": "arn:aws:sns:eu-west-1:6666:ses"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-01234567.pem"},
        {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/mine.pem"},
        {"SigningCertURL": "https://a@sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"},
        {"SigningCertURL": "https://s3.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"},
        {"Timestamp": "2020-01-01T00:00:00.000Z"},
        {"Type": "Other"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_ses_call_of_others_is_refused(
    ask: Ask, store: Elsewhere, certificate: tuple[rsa.RSAPrivateKey, bytes], changes: dict[str, str]
) -> None:
    assert (await ask("POST", "/hooks/ses", sns(certificate[0], ses_bounce(), **changes))).status == 401
    assert ask.fetched == [] and reasons(store) == set()  # type: ignore[attr-defined]


async def test_ses_call_with_a_changed_body_is_refused(ask: Ask, certificate: tuple[rsa.RSAPrivateKey, bytes]) -> None:
    body = sns(certificate[0], ses_bounce()).replace(b"ann@", b"bob@")
    assert (await ask("POST", "/hooks/ses", body)).status == 401


async def test_ses_subscription_is_confirmed_at_the_service_alone(
    ask: Ask, certificate: tuple[rsa.RSAPrivateKey, bytes]
) -> None:
    def confirmation(address: str) -> bytes:
        return sns(certificate[0], {}, Type="SubscriptionConfirmation", Token="t", SubscribeURL=address)

    good = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
    assert (await ask("POST", "/hooks/ses", confirmation(good))).status == 200
    assert ask.fetched[-1] == good  # type: ignore[attr-defined]
    assert (await ask("POST", "/hooks/ses", confirmation("https://evil.example/"))).status == 401
    assert "https://evil.example/" not in ask.fetched  # type: ignore[attr-defined]


async def test_mailgun_bounce_is_proved_and_matched(ask: Ask, store: Elsewhere) -> None:
    assert (await ask("POST", "/hooks/mailgun", mailgun(MAILGUN_BOUNCE, key="wrong"))).status == 401
    assert (await ask("POST", "/hooks/mailgun", mailgun(MAILGUN_BOUNCE, at=NOW - 900))).status == 401
    assert reasons(store) == set()
    assert (await ask("POST", "/hooks/mailgun", mailgun(MAILGUN_BOUNCE))).status == 200
    assert reasons(store) == {(SuppressionReason.HARD, "")}


async def test_mailgun_unsubscribe_is_for_the_list_of_the_run(ask: Ask, store: Elsewhere) -> None:
    event = {**MAILGUN_BOUNCE, "event": "unsubscribed"}
    assert (await ask("POST", "/hooks/mailgun", mailgun(event))).status == 200
    assert reasons(store) == {(SuppressionReason.UNSUBSCRIBE, "news")}


async def test_postmark_complaint_needs_the_secret(ask: Ask, store: Elsewhere) -> None:
    body = json.dumps(POSTMARK_COMPLAINT).encode()
    for headers in ({}, basic("wrong"), {"authorization": "Basic !"}, {"x-webhook-secret": ""}):
        assert (await ask("POST", "/hooks/postmark", body, headers)).status == 401
    assert (await ask("POST", "/hooks/postmark", body, basic("a-secret-of-postmark"))).status == 200
    assert reasons(store) == {(SuppressionReason.SPAM_COMPLAINT, "")}


async def test_standard_webhook_is_proved_and_matched(ask: Ask, store: Elsewhere) -> None:
    body = json.dumps(
        {
            "type": "email.bounced",
            "created_at": datetime.now(UTC).isoformat(),
            "data": {
                "to": ["ann@example.org"],
                "headers": [{"name": "Message-ID", "value": MESSAGE_ID}],
                "bounce": {"type": "Permanent", "message": "550 5.1.1 no such user"},
            },
        }
    )
    now = datetime.now(UTC)
    secret = HOOKS["standard"].secret
    assert secret is not None
    signature = Standard(secret.reveal()).sign("msg_1", now, body)
    headers = {"svix-id": "msg_1", "svix-timestamp": str(int(now.timestamp())), "svix-signature": signature}
    assert (await ask("POST", "/hooks/standard", body.encode() + b" ", headers)).status == 401
    assert (await ask("POST", "/hooks/standard", body.encode(), headers)).status == 200
    assert reasons(store) == {(SuppressionReason.HARD, "")}


async def test_proved_report_about_no_message_of_ours_acts_on_nothing(ask: Ask, store: Elsewhere) -> None:
    event = {**MAILGUN_BOUNCE, "message": {"headers": {"message-id": "other@example.com"}}}
    assert (await ask("POST", "/hooks/mailgun", mailgun(event))).status == 200
    assert reasons(store) == set()


async def test_what_a_service_calls_permanent_without_saying_why_is_no_hard_bounce(ask: Ask, store: Elsewhere) -> None:
    event = {**MAILGUN_BOUNCE, "delivery-status": {"code": 605, "message": "not delivering to previously bounced"}}
    assert (await ask("POST", "/hooks/mailgun", mailgun(event))).status == 200
    assert reasons(store) == set() and len(events(store)) == 1


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": 7},
        {"event": "failed"},
        {"event": "failed", "recipient": None, "delivery-status": []},
        {"event": "new"},
    ],
    ids=str,
)
async def test_report_that_cannot_be_read_is_kept_without_effect(
    ask: Ask, store: Elsewhere, event: dict[str, Any]
) -> None:
    assert (await ask("POST", "/hooks/mailgun", mailgun(event))).status == 200
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(store.store.count, EVERYTHING).result() == 0


@pytest.mark.parametrize("what", ["opened", "clicked", "delivered", "accepted"])
async def test_what_says_nothing_about_an_address_is_not_kept(ask: Ask, store: Elsewhere, what: str) -> None:
    assert (await ask("POST", "/hooks/mailgun", mailgun({**MAILGUN_BOUNCE, "event": what}))).status == 200
    assert events(store) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"nonsense", b"{" * 5_000, b'{"signature": 1}', b"\xff\xfe"], ids=range(6)
)
@pytest.mark.parametrize("provider", sorted(HOOKS))
async def test_hostile_body_is_refused(ask: Ask, provider: str, body: bytes) -> None:
    assert (await ask("POST", f"/hooks/{provider}", body)).status == 401


async def test_temporary_failure_is_no_hard_bounce(ask: Ask, store: Elsewhere) -> None:
    event = {**MAILGUN_BOUNCE, "severity": "temporary"}
    await ask("POST", "/hooks/mailgun", mailgun(event))
    assert reasons(store) == set() and events(store)[0].kind is FeedbackKind.SOFT


def test_form_bodies_of_the_tests_are_what_browsers_send() -> None:
    assert urlencode({"List-Unsubscribe": "One-Click"}).encode() == ONE_CLICK
