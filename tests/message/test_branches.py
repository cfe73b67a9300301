"""The forks of a message, and rows that between them take them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.message.template.branches import Branches, Cover
from bulkmail.model.campaign import Campaign, Template

MakeCampaign = Callable[..., Campaign]


def differ(branches: Branches, one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    return branches.taken(one) != branches.taken(other)


def test_branches_report_rows_apart_by_each_condition(make_campaign: MakeCampaign) -> None:
    branches = Branches(make_campaign(text="{% if a == 'x' %}1{% elif b %}2{% else %}3{% endif %}"))
    first, second, third = {"a": "x", "b": ""}, {"a": "", "b": "1"}, {"a": "", "b": ""}
    assert differ(branches, first, second) and differ(branches, second, third) and differ(branches, first, third)
    assert not differ(branches, first, {"a": "x", "b": "1"})  # elif is not asked any more


def test_branches_are_found_in_subject_loops_and_partials(make_campaign: MakeCampaign) -> None:
    for changes in (
        {"subject": "{{ 'Dear' if vip else 'Hello' }}"},
        {"text": "{% for one in vip %}x{% endfor %}"},
        {"text": "{% include 'foot' %}", "partials": (Template("foot", "{% if row['vip'] %}x{% endif %}"),)},
    ):
        branches = Branches(make_campaign(**changes))
        assert differ(branches, {"vip": ""}, {"vip": "yes"}), changes


def test_branches_of_a_loop_are_never_once_and_more(make_campaign: MakeCampaign) -> None:
    branches = Branches(make_campaign(text="{% for item in items %}{{ item }}{% endfor %}"))
    assert len({branches.taken({"items": [0] * number}) for number in range(5)}) == 3


def test_branches_pass_over_what_a_loop_makes_up(make_campaign: MakeCampaign) -> None:
    branches = Branches(make_campaign(text="{% for item in items %}{% if item.new %}!{% endif %}{% endfor %}"))
    assert not differ(branches, {"items": [{"new": 1}]}, {"items": [{"new": 0}]})


def test_branches_accept_rows_that_a_condition_does_not_suit(make_campaign: MakeCampaign) -> None:
    branches = Branches(make_campaign(text="{% if age > 18 %}x{% endif %}"))
    assert len({branches.taken(row) for row in ({}, {"age": "old"}, {"age": 19}, {"age": 1})}) == 3


def test_branches_of_a_plain_message_are_none(make_campaign: MakeCampaign) -> None:
    assert not Branches(make_campaign(text="Dear {{ name }}"))
    assert not Branches(make_campaign(text="{% if %}"))


@pytest.mark.slow
@given(st.lists(st.frozensets(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=5), min_size=1, max_size=30))
def test_cover_takes_every_way_and_no_row_without_need(rows: list[frozenset[tuple[int, int]]]) -> None:
    cover = Cover()
    for number, ways in enumerate(rows, 1):
        cover.offer(number, ways)
    chosen = cover.chosen()
    assert chosen == sorted(set(chosen))
    assert frozenset().union(*(rows[number - 1] for number in chosen)) == frozenset().union(*rows)
    assert 1 <= len(chosen) <= max(1, len(frozenset().union(*rows)))
