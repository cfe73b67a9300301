"""Throws bytes that a fuzzer thinks of at whatever reads what others wrote; no test, and not run by pytest.

    pip install atheris        # not among the extras: it has no wheels for every Python
    python tests/faults/fuzz.py replies -max_total_time=240

The first word says what is to read them: replies, lists, templates, messages or logs; all others are libFuzzer's.  It
ends at the first exception that none of our promises allows, at a broken promise, after ten seconds over one input and
at two gigabytes of memory.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["bulkmail", "jinja2"]):
    from bulkmail.message.template.environment import LONGEST_OUTPUT
    from bulkmail.message.template.rendering import Workshop, compile_condition

    pass
    pass
    pass
    pass
    pass
    from bulkmail.model.campaign import Template
    from bulkmail.model.errors import ListError, TemplateError
    from bulkmail.model.recipient import Address
    from bulkmail.recipients.list_reading import ListOptions, Reading
    from bulkmail.recipients.list_source import read_list
    from bulkmail.recipients.streams import OpenedList
    from bulkmail.reconcile.logs import LogReader, _cut
    from bulkmail.settings.message_file import read_message_file
    from bulkmail.settings.problems import Problems
    from bulkmail.smtp.replies import LONGEST_REPLY, RawReply, ReplyError, ReplyParser

from tests.recipients.test_lists_property import check_row, check_words

ENCODINGS = ("", "", "", "utf-8", "cp1252", "utf-16-le", "shift_jis", "iso2022_jp", "utf-7")
SUFFIXES = (".csv", ".json", ".jsonl", "", ".tsv")
ROW = {
    "name": "Ann",
    "n": 7,
    "x": 1.5,
    "yes": True,
    "none": None,
    "list": [1, "two", {"a": 3}],
    "of": {"a": "b", "items": "c"},
    "evil": "</p>\r\nBcc: eve@example.com\r\n{{ 7 * 7 }}",
}


def read_replies(data: bytes) -> None:
    """The same replies, or the same refusal in printable words, however the bytes are cut; memory stays bounded."""

    def read(*pieces: bytes) -> list[RawReply] | str:
        parser, found = ReplyParser(), []
        try:
            for piece in pieces:
                parser.feed(piece)
                while (reply := parser.next_reply()) is not None:
                    assert 200 <= reply.code <= 599 and reply.lines
                    found.append(reply)
                assert len(parser._buffer) <= LONGEST_REPLY
        except ReplyError as error:
            check_words(str(error))
            return str(error)
        return found

    if data:
        step = data[0] % 7 + 1
        data = data[1:]
        assert read(data) == read(*(data[start : start + step] for start in range(0, len(data), step)))


def read_lists(data: bytes) -> None:
    """A row that can be stored and shown, or a `ListError`."""
    if len(data) < 2:
        return
    encoding, suffix = ENCODINGS[data[0] % len(ENCODINGS)], SUFFIXES[data[1] % len(SUFFIXES)]
    if data[2:4] == b"PK":  # a workbook is read by a library in another language
        return
    stream = io.BytesIO(data[2:])
    try:
        with read_list(
            OpenedList("list" + suffix, suffix, stream, stream), Reading("list", ListOptions(encoding=encoding))
        ) as people:
            for row in people:
                check_row(row)
            check_words(*people.notices)
    except ListError as error:
        check_words(str(error), error.hint)


def render_templates(data: bytes) -> None:
    """A text of bounded size, or a `TemplateError`; no cell is taken for a template."""
    if not data:
        return
    text = data[1:].decode("utf-8", "replace")
    workshop = Workshop((Template("part", "{{ name }}"),))
    kinds = (workshop.text, workshop.html, workshop.header, workshop.calendar)
    try:
        if data[0] % 5 == 4:
            compile_condition(text)(ROW)
            return
        rendering = kinds[data[0] % 5](Template("message", text))
        result = rendering.render(workshop.variables(ROW, Address("ann", "example.com")))
    except TemplateError:
        return
    assert len(result) <= LONGEST_OUTPUT


def read_message_files(data: bytes) -> None:
    """Settings, or faults with their line."""
    problems = Problems()
    text = data.decode("utf-8", "replace")
    _, lines, *_ = read_message_file(text, Path("message.txt"), problems)
    last = text.count("\n") + 2
    assert all(1 <= line <= last for line in lines.values())


def read_logs(data: bytes) -> None:
    """Sightings of things that look like a Message-ID, and nothing else."""
    reader = LogReader("mail.log")
    for line in _cut(io.BytesIO(data)):
        for sighting in reader.read(line):
            assert sighting.message_id.startswith("<") and sighting.message_id.endswith(">")
            assert reader.has_read


READERS: dict[str, Callable[[bytes], None]] = {
    "replies": read_replies,
    "lists": read_lists,
    "templates": render_templates,
    "messages": read_message_files,
    "logs": read_logs,
}

# What it begins with: of a regular expression that never matches a fuzzer learns nothing.
SEEDS: dict[str, list[bytes]] = {
    "replies": [
        b"\0250 ok\r\n",
        b"\1250-a\r\n250 2.1.0 b\r\n421 c\r\n",
        b"\2550 caf\xe9 \xff\n",
        b"\6250-\r\n251 x\r\n",
    ],
    "lists": [
        *[b"\0\0email,name\na@x.org,Ann\n", b'\0\0email;name\r\n"a@x.org";"A ""b""\r\nc"\r\n'],
        *[b'\0\1[{"email":"a@x.org","n":[1e3,null]},{"email":"b@x.org"}]', b'\0\1{"recipients":[{"email":"a@x.org"}]}'],
        *[b'\0\2{"email":"a@x.org"}\n{"email":"b@x.org","t":"\\u00e9\\ud800"}\n', b"\0\0sep=;\nemail;a\nb@x.org;1\n"],
        *[
            b"\5\0" + "email,name\na@x.org,Ann\n".encode("utf-16-le"),
            b"\0\3\xef\xbb\xbfemail\tname\nAnn <a@x.org>\t1\n",
        ],
    ],
    "templates": [
        *[b"\0Dear {{ name }},\n{% for x in list %}{{ loop.index }} {{ x }}{% else %}-{% endfor %}"],
        *[
            b"\1<p title='{{ evil }}'>{{ evil | upper | replace('A', 'b') }}</p>{% include 'part' %}",
            b"\2{{ n }} for\n{{ name }}",
        ],
        *[b"\0{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ m(n) }}{% set z = of.a %}{{ z[0] }}{{ '%s' % n }}"],
        *[b"\0{{ '{0:>9}'.format(name) }}{{ range(n) | list | join(', ') }}{{ 2 ** n * 3 }}{{ row['of']['items'] }}"],
        *[
            b"\4n > 3 and name == 'Ann' or not yes",
            b"\0{% if none is none %}{{ x | round(1) }}{% elif yes %}{% endif %}{# c #}",
        ],
        *[
            b"\3BEGIN:VEVENT\nSUMMARY:{{ evil }}\n",
            b"\0{{ ''.__class__.__mro__[1].__subclasses__() }}{{ self }}{{ cycler(1, 2).next() }}",
        ],
        *[b"\0{{ list | map(attribute='a') | select | list }}{{ of | tojson }}{{ name | default('x') | truncate(2) }}"],
    ],
    "messages": [
        b"TO: {{ name }} <{{ email }}>\nFROM: Shop <shop@x.org>\nSUBJECT: Hello\nATTACHMENT: a.x\n\nDear {{ name }}\n",
        b"TO: {{row['E-mail']}}\nSubject: =?utf-8?q?caf=C3=A9?=\n more\nFrom: a@b\nContent-Type: text/markdown\n\n#\n",
        b'To: {{email}}\nContent-Type: multipart/alternative; boundary="x"\n\n--x\nContent-Type: text/plain\n\na\n'
        b"--x\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\nPGI+\n--x--\n",
        b"{# c #}\nTO: {{email}}\nContent-Transfer-Encoding: quoted-printable\nContent-Type: text/html\n\n=C3=A9=\n",
    ],
    "logs": [
        b"Jan 10 10:00:00 mx postfix/cleanup[72]: 4QxAAA1zz: message-id=<1.run@shop.example>\n"
        b"Jan 10 10:00:00 mx postfix/qmgr[11]: 4QxAAA1zz: from=<s@shop.example>, size=500, nrcpt=1 (queue active)\n"
        b"Jan 10 10:00:01 mx postfix/smtp[73]: 4QxAAA1zz: to=<a@x.org>, orig_to=<b@x.org>, relay=y, status=sent (ok)\n"
        b"Jan 10 10:00:01 mx postfix/qmgr[11]: 4QxAAA1zz: removed\n",
        b"2024-01-10 10:00:00 1rNabc-0003Xy-7L <= s@shop.example H=x P=esmtp S=500 id=1.run@shop.example for a@x.org\n"
        b"2024-01-10 10:00:01 1rNabc-0003Xy-7L => a@x.org R=dnslookup T=remote_smtp\n",
    ],
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        sys.exit(f"usage: python {sys.argv[0]} {'|'.join(READERS)} [option of libFuzzer …]")
    reader = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="bulkmail-fuzz-") as name:
        folder = Path(name)
        words = {word for seed in SEEDS[reader] for word in re.findall(rb"\w+|[^\w\s]{1,3}", seed)}
        (folder / "words").write_text("".join(f'"{escaped(word)}"\n' for word in words))
        (folder / "corpus").mkdir()
        for number, seed in enumerate(SEEDS[reader]):
            (folder / "corpus" / str(number)).write_bytes(seed)
        bounds = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=20000", f"-dict={folder / 'words'}"]
        atheris.Setup([sys.argv[0], *bounds, *sys.argv[2:], str(folder / "corpus")], READERS[reader])
        atheris.Fuzz()


def escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
