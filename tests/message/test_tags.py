"""Template tags taken out and put back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from bulkmail.message.template.tags import TagKind, mask
from bulkmail.model.campaign import Template
from bulkmail.model.errors import TemplateError


def masked(text):
    return mask(Template("message.html", text))


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a {{ x }} b {%- if y %}c{% endif -%} d", ["{{ x }}", "{%- if y %}", "{% endif -%}"]),
        ('{{ "}}" }}', ['{{ "}}" }}']),
        ("{{ {'a': {'b': 1}}['a'] }}", ["{{ {'a': {'b': 1}}['a'] }}"]),
        ("{% raw %}{{ x }}{% endraw %}{{ y }}", ["{% raw %}{{ x }}{% endraw %}", "{{ y }}"]),
        ("{# {{ x }} #}{{ y }}", ["{# {{ x }} #}", "{{ y }}"]),
        ("{% if '%}' %}x{% endif %}", ["{% if '%}' %}", "{% endif %}"]),
        ("nothing", []),
    ],
    ids=["plain", "end-in-quotes", "braces", "raw", "comment", "block-end-in-quotes", "none"],
)
def test_mask_finds_each_tag_as_jinja_does(text, tags):
    found = masked(text)
    assert [tag.text for tag in found.tags] == tags
    assert found.unmasked() == text


def test_mask_reports_what_kind_a_tag_is():
    found = masked("{{ x }}{% for a in b %}{# c #}{% raw %}d{% endraw %}")
    assert [tag.kind for tag in found.tags] == [TagKind.VALUE, TagKind.BLOCK, TagKind.COMMENT, TagKind.RAW]
    assert [tag.keyword for tag in found.tags] == ["", "for", "", ""]
    assert found.tags[0].words == ["x"]
    assert masked("{{ 'safe' ~ x }}").tags[0].words == ["x"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\n{{ x", "message.html:2: the tag that begins with {{ does not end"),
        ("a\n\n\ufdd0", "message.html:3: holds U+FDD0, which is not a character"),
    ],
    ids=["open-tag", "noncharacter"],
)
def test_mask_refuses_what_cannot_be_put_back(text, reason):
    with pytest.raises(TemplateError) as caught:
        masked(text)
    assert str(caught.value) == reason


PIECES = st.sampled_from(["a", " ", "\n", "{{ x }}", "{{- x -}}", "{%- if x %}", "{% endif -%}", "{#- c -#}", "<p>"])


@pytest.mark.slow
@given(st.lists(PIECES, max_size=8).map("".join))
def test_mask_without_control_renders_the_same(text):
    depth = 0
    for tag in masked(text).tags:
        depth += {"if": 1, "endif": -1}.get(tag.keyword, 0)
        if depth < 0:
            return
    if depth:
        return
    environment = Environment(autoescape=True)
    plain = masked(text).without_control().unmasked()
    assert "-" not in plain
    assert environment.from_string(plain).render(x="X") == environment.from_string(text).render(x="X")
