"""Line numbers of keys."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bulkmail.settings.layers import KeyPath, locate_keys

TEXT = '''\
# a note with key = "value" in it
name = "spring" # and "another"
relay = """
subject = "not a key"
[nor a table]
"""
path = 'C:\\temp'

[message]
from = "a#b"
"quoted key" = 1
headers.X-Shop = "yes"
attachments = [
  "menu.pdf",   # the menu
  { file = "b.pdf", name = "]}" },
  [1,
   2],
]

[message.text]
inline = \'\'\'
from = 1\'\'\'
[[relays]]
url = 1
[[relays]]
url = 2
[relays.tls]
ca = 1
'''

LINES: dict[KeyPath, int] = {
    ("name",): 2,
    ("relay",): 3,
    ("path",): 7,
    ("message",): 9,
    ("message", "from"): 10,
    ("message", "quoted key"): 11,
    ("message", "headers"): 12,
    ("message", "headers", "X-Shop"): 12,
    ("message", "attachments"): 13,
    ("message", "attachments", 0): 14,
    ("message", "attachments", 1): 15,
    ("message", "attachments", 1, "file"): 15,
    ("message", "attachments", 1, "name"): 15,
    ("message", "attachments", 2): 16,
    ("message", "attachments", 2, 0): 16,
    ("message", "attachments", 2, 1): 17,
    ("message", "text"): 20,
    ("message", "text", "inline"): 21,
    ("relays",): 23,
    ("relays", 0): 23,
    ("relays", 0, "url"): 24,
    ("relays", 1): 25,
    ("relays", 1, "url"): 26,
    ("relays", 1, "tls"): 27,
    ("relays", 1, "tls", "ca"): 28,
}


def test_locator_finds_every_key_of_a_long_text() -> None:
    tomllib.loads(TEXT)
    assert locate_keys(TEXT) == LINES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "# only a note",
        "a = ",
        "a",
        "[",
        "[a",
        "[[a]",
        '"',
        "a = [1, 2",
        "a = {b = 1",
        "= 1",
        "a.= 1",
        '"\\q" = 1',
    ],
)
def test_locator_keeps_silent_about_what_is_not_toml(text: str) -> None:
    assert all(line == 1 for line in locate_keys(text).values())


def test_locator_survives_a_deep_nest() -> None:
    assert locate_keys("a = " + "[" * 100_000)[("a",)] == 1


def flatten(value: object, path: KeyPath = ()) -> set[KeyPath]:
    """The path of every key and item in parsed TOML."""
    found = {path} if path else set()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found.union(*(flatten(item, (*path, key)) for key, item in items))


KEYS = st.one_of(st.sampled_from(["a", "b-c", "D_1", "0"]), st.text(max_size=5).map(lambda text: f'"{escape(text)}"'))


def escape(text: str) -> str:
    """`text` as the inside of a TOML string."""
    return "".join(
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text if not 0xD800 <= ord(c) < 0xE000
    )


SCALARS = st.one_of(
    st.sampled_from(
        ["1", "true", "-1.5", "1979-05-27", "'# no = note'", '"""\na = 1\n"x" ""\\"""""', "'''\n[x]\n''''"]
    ),
    st.text(max_size=8).map(lambda text: f'"{escape(text)}"'),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # , ]\n".join(items) + "\n]"),
        st.dictionaries(KEYS, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
HEADS = st.tuples(st.sampled_from(["[{}]", "[[{}]]"]), st.lists(KEYS, min_size=1, max_size=3)).map(
    lambda head: head[0].format(" . ".join(head[1]))
)
PAIRS = st.tuples(st.lists(KEYS, min_size=1, max_size=2), VALUES).map(lambda pair: f"{'.'.join(pair[0])} = {pair[1]}")


@pytest.mark.slow
@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.one_of(HEADS, PAIRS, st.just("# note"), st.just("")), max_size=8).map("\n".join))
@example("[[a]]\n[[a]]\nb = 1\n[a.c]\n[[a.d]]\n[[a.d]]")
@example("a.b = 1\n[c]\na.b = [{x = 1}, {y = 2}]")
def test_locator_knows_every_key_that_toml_has(text: str) -> None:
    try:
        wanted = flatten(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        locate_keys(text)
        return
    found = locate_keys(text)
    assert wanted <= found.keys()
    lines = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str) and path[-1].isidentifier() and path[-1].isascii():
            assert path[-1] in lines[line - 1]
