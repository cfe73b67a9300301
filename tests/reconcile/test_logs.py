"""Logs of Postfix and Exim: what proves that a message was taken, and what does not."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.reconcile.logs import LONGEST_LINE, LogReader, look_in_log

POSTFIX = """\
Jan 10 10:00:00 mx postfix/smtpd[71]: 4Qx1: client=shop.example[192.0.2.1]
Jan 10 10:00:00 mx postfix/cleanup[72]: 4QxAAA1zz: message-id=<1.run@shop.example>
Jan 10 10:00:00 mx postfix/qmgr[11]: 4QxAAA1zz: from=<shop@shop.example>, size=500, nrcpt=1 (queue active)
Jan 10 10:00:01 mx postfix/smtp[73]: 4QxAAA1zz: to=<Ann@example.com>, relay=mx.example.com[192.0.2.9]:25, delay=1, \
delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)
Jan 10 10:00:01 mx postfix/qmgr[11]: 4QxAAA1zz: removed
Jan 10 10:00:02 mx postfix/cleanup[72]: 4QxAAA1zz: message-id=<2.run@shop.example>
Jan 10 10:00:02 mx postfix/smtpd[71]: lost connection after DATA (500 bytes) from shop.example[192.0.2.1]
2024-01-10T10:00:03.123+01:00 mx postfix/out/cleanup[72]: 9F00D2A: message-id=<3.run@shop.example>
2024-01-10T10:00:04.123+01:00 mx postfix/out/smtp[72]: 9F00D2A: to=<real@example.com>, orig_to=<alias@example.com>, \
relay=none, delay=3, dsn=5.1.1, status=bounced (no such user)
"""

EXIM = """\
2024-01-10 10:00:00 1rNabc-0003Xy-7L <= shop@shop.example H=shop.example [192.0.2.1] P=esmtp S=500 \
id=1.run@shop.example for ann@example.com
2024-01-10 10:00:01 1rNabc-0003Xy-7L => ann@example.com R=dnslookup T=remote_smtp H=mx.example.com C="250 ok"
2024-01-10 10:00:01 1rNabc-0003Xy-7L Completed
2024-01-10 10:00:02 +0100 [3211] 1rNabd-000000003Xy-7Lab <= shop@shop.example P=esmtp S=501 id=2.run@shop.example
2024-01-10 10:00:02 +0100 [3212] 1rNabd-000000003Xy-7Lab ** Bob <bob@example.com> R=dnslookup: no such user
2024-01-10 10:00:03 H=shop.example [192.0.2.1] rejected MAIL <shop@shop.example>
"""


def seen(text: str) -> dict[str, set[str]]:
    """Message-ID → whom it was seen for."""
    reader, found = LogReader("mail.log"), {}
    for line in text.splitlines():
        for sighting in reader.read(line):
            found.setdefault(sighting.message_id, set()).update(sighting.forward_paths)
    return found


def test_postfix_proves_what_it_queued_and_not_what_it_began_to_read() -> None:
    """A queue id comes again: what was removed has nothing to do with what comes under it later."""
    assert seen(POSTFIX) == {
        "<1.run@shop.example>": {"ann@example.com"},
        "<3.run@shop.example>": {"real@example.com", "alias@example.com"},
    }


def test_exim_proves_what_it_took() -> None:
    assert seen(EXIM) == {
        "<1.run@shop.example>": {"ann@example.com"},
        "<2.run@shop.example>": {"bob@example.com"},
    }


def test_log_may_be_packed(tmp_path: Path) -> None:
    packed = tmp_path / "mail.log.2.gz"
    packed.write_bytes(gzip.compress(POSTFIX.encode()))
    assert {sighting.message_id for sighting in look_in_log(str(packed))} == set(seen(POSTFIX))


@pytest.mark.parametrize("content", [b"", b"nothing of the kind\n\xff\xfe\n"], ids=["empty", "another"])
def test_log_of_something_else_is_reported(tmp_path: Path, content: bytes) -> None:
    """An empty result would be taken for an answer."""
    (tmp_path / "some.log").write_bytes(content)
    with pytest.raises(ConfigError, match=r"some\.log: no line in it is of Postfix or Exim"):
        list(look_in_log(str(tmp_path / "some.log")))


@pytest.mark.parametrize("name", ["missing.log", "broken.gz", "."], ids=["missing", "broken", "folder"])
def test_log_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.gz").write_bytes(gzip.compress(POSTFIX.encode())[:90])
    with pytest.raises(ConfigError):
        list(look_in_log(str(tmp_path / name)))


@pytest.mark.slow
@given(st.lists(st.text() | st.sampled_from((POSTFIX + EXIM).splitlines())))
def test_reader_accepts_any_line(lines: list[str]) -> None:
    reader = LogReader("log")
    known = set(seen(POSTFIX)) | set(seen(EXIM)) | {"<2.run@shop.example>"}
    for line in lines:
        assert all(sighting.message_id in known for sighting in reader.read(line))


@pytest.mark.parametrize(
    "piece", ["postfix/", "postfix/a[", "postfix/x/cleanup[1]: ABCDEF1: message-id=<", " for a@b.c"]
)
def test_hostile_line_costs_no_more_than_its_length(piece: str) -> None:
    reader = LogReader("log")
    begun = time.process_time()
    for head in ("", "postfix/cleanup[1]: ABCDEF1: ", "a b 1abcde-abcdef-ab <= x id=1 "):
        list(reader.read((head + piece * LONGEST_LINE)[:LONGEST_LINE]))
    assert time.process_time() - begun < 0.9  # it was seven seconds for the worst of them
