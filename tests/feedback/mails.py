"""Mails that come back, made up after the formats of real programs."""

from __future__ import annotations

ANN = "ann@example.org"
OUR_ID = "<abcdefghijklmnopqrstuvwxyz234567@shop.example>"

QUOTED = f"""Return-Path: <news@shop.example>
Received: by mail.shop.example (Postfix) id 4F; Tue, 3 Nov 2026 10:00:00 +0000
From: Shop <news@shop.example>
To: Ann <{ANN}>
Subject: Autumn
Message-ID: {OUR_ID}
"""


def dsn(
    *,
    recipient: str = ANN,
    original: str = "",
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "smtp; 550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown",
    quoted: str = QUOTED,
    headers: str = "",
    envelope_id: str = "",
) -> bytes:
    """A report as Postfix writes it (RFC 3464)."""
    lines = [f"Final-Recipient: rfc822; {recipient}", f"Action: {action}", f"Status: {status}"]
    if original:
        lines.insert(0, f"Original-Recipient: rfc822;{original}")
    if diagnostic:
        lines.append(f"Diagnostic-Code: {diagnostic}")
    first = "Reporting-MTA: dns; mx.example.org"
    if envelope_id:
        first += f"\nOriginal-Envelope-Id: {envelope_id}"
    return f"""Return-Path: <>
{headers}Date: Tue, 3 Nov 2026 10:00:05 +0000
From: MAILER-DAEMON@mx.example.org (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: news@shop.example
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"
Message-Id: <20261103100005.1@mx.example.org>

This is a MIME-encapsulated message.

--b1
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.example.org.
Your message could not be delivered.

--b1
Content-Type: message/delivery-status

{first}

{chr(10).join(lines)}

--b1
Content-Type: text/rfc822-headers

{quoted}
--b1--
""".encode()


def exim(*, words: str = "550 no such user here", recipients: tuple[str, ...] = (ANN,)) -> bytes:
    """A bounce of Exim before it wrote DSNs: fields of its own, and words."""
    named = "\n".join(f"  {each}\n    host mx.example.org [192.0.2.7]\n    {words}" for each in recipients)
    return f"""Return-path: <>
X-Failed-Recipients: {", ".join(recipients)}
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@mail.shop.example>
To: news@shop.example
Subject: Mail delivery failed: returning message to sender
Message-Id: <E1-2-3@mail.shop.example>
Date: Tue, 03 Nov 2026 10:00:05 +0000

This message was created automatically by mail delivery software.

A message that you sent could not be delivered to one or more of its
recipients. This is a permanent error. The following address(es) failed:

{named}

------ This is a copy of the message, including all the headers. ------

{QUOTED}
""".encode()


def qmail(*, words: str = "Remote host said: 552 over quota", headers: str = "") -> bytes:
    """A bounce of qmail."""
    return f"""Return-Path: <>
{headers}From: MAILER-DAEMON@mx.example.org
To: news@shop.example
Subject: failure notice
Date: 3 Nov 2026 10:00:05 -0000

Hi. This is the qmail-send program at mx.example.org.
I wasn't able to deliver your message to the following addresses.

<{ANN}>:
{words}

--- Below this line is a copy of the message.

{QUOTED}
""".encode()


def arf(*, feedback_type: str = "abuse", fields: str = f"Original-Rcpt-To: {ANN}\n", quoted: str = QUOTED) -> bytes:
    """A spam complaint (RFC 5965)."""
    return f"""From: <feedback@fbl.example.net>
Date: Tue, 3 Nov 2026 11:00:00 +0000
Subject: FW: Autumn
To: <abuse@shop.example>
Message-ID: <fbl-1@fbl.example.net>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b2"

--b2
Content-Type: text/plain

This is an email abuse report.

--b2
Content-Type: message/feedback-report

Feedback-Type: {feedback_type}
User-Agent: Loop/1.0
Version: 1
{fields}
--b2
Content-Type: message/rfc822

{quoted}
Text.
--b2--
""".encode()


def jmrp() -> bytes:
    """What Microsoft sends for a complaint: an empty mail around the message."""
    return f"""From: <staff@hotmail.com>
Subject:  complaint about message from 192.0.2.1
To: abuse@shop.example
Date: Tue, 3 Nov 2026 11:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b3"

--b3
Content-Type: message/rfc822

X-HmXmrOriginalRecipient: {ANN}
{QUOTED}
Text.
--b3--
""".encode()


def holiday(*, subject: str = "Out of office: Autumn", headers: str = "Auto-Submitted: auto-replied\n") -> bytes:
    """An answer of a mailbox whose owner is away (RFC 3834)."""
    return f"""Return-Path: <>
{headers}From: Ann <{ANN}>
To: news@shop.example
Subject: {subject}
In-Reply-To: {OUR_ID}
Date: Tue, 3 Nov 2026 10:00:05 +0000

I am back on Monday. User unknown is what I am not.
""".encode()


def request(*, subject: str = "unsubscribe", to: str = "news@shop.example", text: str = "Please.") -> bytes:
    """A mail by which somebody wants to be removed from the list."""
    return f"""Return-Path: <{ANN}>
From: Ann <{ANN}>
To: {to}
Subject: {subject}
Date: Tue, 3 Nov 2026 12:00:00 +0000
Message-ID: <1@example.org>

{text}
""".encode()
