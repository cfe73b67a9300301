"""Sends one message to every row of a CSV file with stock aiosmtplib: several clients, each on its own connection.

python recipe.py LIST.csv MESSAGE.txt MESSAGE.html PORT CONNECTIONS
The list is email,name,town without quotes.  Prints {"accepted": …, "failed": …}.
"""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import Iterator
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

import aiosmtplib
import uvloop


async def main() -> int:
    """The number of messages that failed."""
    name, text_file, html_file, port, connections = sys.argv[1:]
    text, html = (Path(file).read_text("utf-8") for file in (text_file, html_file))  # noqa: ASYNC240 - on disk
    counts = {"accepted": 0, "failed": 0}

    def make_message(row: dict[str, str]) -> EmailMessage:
        message = EmailMessage()
        message["From"] = "Shop <shop@example.org>"
        message["To"] = Address(row["name"], addr_spec=row["email"])
        message["Subject"] = f"Hello {row['name']}"
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain="example.org")
        message.set_content(text.replace("{{ name }}", row["name"]).replace("{{ town }}", row["town"]))
        page = html.replace("{{ name }}", row["name"]).replace("{{ town }}", row["town"])
        message.add_alternative(page, subtype="html")
        return message

    async def client(rows: Iterator[dict[str, str]]) -> None:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=int(port), start_tls=False, timeout=600) as smtp:
            for row in rows:
                try:
                    await smtp.send_message(make_message(row))
                    counts["accepted"] += 1
                except aiosmtplib.SMTPException as error:
                    counts["failed"] += 1
                    if counts["failed"] == 1:
                        print(error, file=sys.stderr)

    with open(name, encoding="utf-8", newline="") as source:  # noqa: ASYNC230 - a file on disk
        rows: Iterator[dict[str, str]] = csv.DictReader(source)
        await asyncio.gather(*(client(rows) for _ in range(int(connections))))
    print(json.dumps(counts))
    return counts["failed"]


if __name__ == "__main__":
    sys.exit(1 if uvloop.run(main()) else 0)
