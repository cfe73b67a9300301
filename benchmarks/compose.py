"""How long a message of 2 KB text and 2 KB HTML takes, against Jinja and the standard library's own EmailMessage.

And how much longer a DKIM signature takes than the bare RSA signature in it.

Run from a checkout: python benchmarks/compose.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from email.headerregistry import Address as StandardAddress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bulkmail.message.compose.composer import Composer
from bulkmail.message.compose.mime_plan import make_plan
from bulkmail.message.dkim import Signer, Signers
from bulkmail.model.campaign import Campaign, Dkim, Template
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.model.relay import Secret

MESSAGES = 2000
ROUNDS = 5

SUBJECT = "{{ first_name }}, what is new in {{ city }}"
TEXT = "Dear {{ first_name }} {{ last_name }},\n\n" + "this is one of the lines that everyone gets to read.\n" * 18
TEXT += "{% if plan == 'gold' %}Thank you for {{ years }} years with us.\n{% else %}Have you seen gold?\n{% endif %}"
TEXT += (
    "and some lines more before we come to the end of it.\n" * 16
    + "\nhttps://example.com/u?who={{ email | urlencode }}\n"
)
HTML = "<!doctype html>\n<html><body>\n<h1>Dear {{ first_name }} {{ last_name }}</h1>\n"
HTML += '<p style="color: #333">This is one of the lines that everyone gets.</p>\n' * 12
HTML += "{% for item in ['one', 'two', 'three'] %}<li>{{ item }} for {{ city }}</li>\n{% endfor %}"
HTML += '<p style="color: #333">And some lines more before we come to the end.</p>\n' * 11
HTML += '<p><a href="https://example.com/u?who={{ email | urlencode }}">Goodbye</a></p>\n</body></html>\n'
MESSAGE = Campaign(
    "benchmark",
    Template("sender", "Example News <news@example.com>"),
    Template("subject", SUBJECT),
    text=Template("message.txt", TEXT),
    html=Template("message.html", HTML),
)
NAMES = ("Ann", "Zoë", "Müller", "Bob", "Łukasz", "Carol", "Dave", "Eve")


def people() -> list[Recipient]:
    """A list in which half of the names need encoding."""
    return [
        Recipient(
            Address(f"person{number}", "example.com"),
            f"{NAMES[number % 8]} Example",
            {
                "email": f"person{number}@example.com",
                "first_name": NAMES[number % 8],
                "last_name": f"Example {number}",
                "city": "Wien" if number % 2 else "Graz",
                "plan": "gold" if number % 3 else "free",
                "years": str(number % 9),
            },
            Place("people.csv", number + 2),
        )
        for number in range(MESSAGES)
    ]


def ours(recipients: list[Recipient]) -> Callable[[], int]:
    """Composes them all; returns the bytes."""
    composer = Composer(MESSAGE, run_id="benchmark")

    def run() -> int:
        return sum(
            composer.compose(recipient, row=row, forward_path=recipient.address.wire, date=1_700_000_000.0).size_bytes
            for row, recipient in enumerate(recipients, 1)
        )

    return run


def gate(recipients: list[Recipient]) -> Callable[[], int]:
    """Checks them all, as the preflight does."""
    composer = Composer(MESSAGE, run_id="benchmark")

    def run() -> int:
        for recipient in recipients:
            composer.check(recipient)
        return len(recipients)

    return run


def standard(recipients: list[Recipient], *, with_message: bool = True) -> Callable[[], int]:
    """The same by Jinja and EmailMessage, with what can be kept between messages kept."""
    plain = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    escaped = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=True)
    subject, text, html = plain.from_string(SUBJECT), plain.from_string(TEXT), escaped.from_string(HTML)
    sender = StandardAddress("Example News", addr_spec="news@example.com")
    date = format_datetime(datetime.fromtimestamp(1_700_000_000, UTC))

    def run() -> int:
        raw = 0
        for row, recipient in enumerate(recipients, 1):
            rendered = [template.render(recipient.fields) for template in (subject, text, html)]
            if not with_message:
                raw += sum(map(len, rendered))
                continue
            message = EmailMessage()
            message["From"] = sender
            message["To"] = StandardAddress(recipient.name, addr_spec=recipient.address.wire)
            message["Subject"] = rendered[0]
            message["Date"] = date
            message["Message-ID"] = f"<{row}@example.com>"
            message.set_content(rendered[1])
            message.add_alternative(rendered[2], subtype="html")
            raw += len(message.as_bytes(policy=SMTP))
        return raw

    return run


def signed(recipients: list[Recipient]) -> tuple[Callable[[], int], Callable[[], int], Callable[[], int]]:
    """Signs all messages with DKIM, RSA-2048; in two threads; and the bare signature of as many bytes as DKIM signs."""
    key = generate_private_key(65537, 2048)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    campaign = replace(MESSAGE, list_id=Template("list_id", "news.example.com"))
    composer = Composer(campaign, run_id="benchmark")
    messages = [
        composer.compose(recipient, row=row, forward_path=recipient.address.wire, date=1_700_000_000.0).buffers
        for row, recipient in enumerate(recipients, 1)
    ]
    signers = Signers([Signer(Dkim("example.com", "s1"), Secret(text))], make_plan(campaign).segments)

    def sign() -> int:
        return sum(len(signers.sign(buffers, 1_700_000_000)) for buffers in messages)

    def bare() -> int:
        data, padding, digest = b"x" * 700, PKCS1v15(), SHA256()
        return sum(len(key.sign(data, padding, digest)) for _ in messages)

    def sign_half(start: int) -> int:
        return sum(len(signers.sign(buffers, 1_700_000_000)) for buffers in messages[start::2])

    def sign_in_threads() -> int:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(sign_half, (0, 1)))

    return sign, sign_in_threads, bare


def microseconds(run: Callable[[], int]) -> float:
    """The median time a message, after one round to warm up."""
    run()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times) / MESSAGES * 1e6


def main() -> None:
    """Prints the times and their ratio."""
    recipients = people()
    theirs = microseconds(standard(recipients))
    jinja = microseconds(standard(recipients, with_message=False))
    checked = microseconds(gate(recipients))
    composed = microseconds(ours(recipients))
    sign, sign_in_threads, bare = signed(recipients)
    dkim, threads, rsa = microseconds(sign), microseconds(sign_in_threads), microseconds(bare)
    print(f"text {len(TEXT)} and HTML {len(HTML)} characters, {MESSAGES:,} messages, median of {ROUNDS}")
    print(f"Jinja + EmailMessage + as_bytes  {theirs:8.1f} µs a message")
    print(f"Jinja alone                      {jinja:8.1f} µs")
    print(f"bulkmail, check                  {checked:8.1f} µs")
    print(f"bulkmail, compose                {composed:8.1f} µs, {theirs / composed:.1f} times as fast")
    print(f"RSA-2048 signature alone         {rsa:8.1f} µs")
    print(f"bulkmail, DKIM with RSA-2048     {dkim:8.1f} µs, {dkim / rsa:.2f} times the signature alone")
    print(f"the same in two threads          {threads:8.1f} µs, {dkim / threads:.2f} times as fast")


if __name__ == "__main__":
    main()
