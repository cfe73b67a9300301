"""Which ways through its templates a message takes for a row: those of its conditions and of its loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

from jinja2 import meta, nodes
from jinja2.environment import TemplateExpression

from bulkmail.message.template.constants import read_values
from bulkmail.message.template.environment import MessageEnvironment, make_environment, reset_ranges
from bulkmail.model.campaign import Campaign

Way = tuple[int, int]
"""A fork of the message, by number, and which of its branches is taken there."""

_Fork = Callable[[dict[str, object]], int]

_UNDECIDED = -1  # the row does not decide the condition: the message fails there, or never comes there


class Branches:
    """The forks of a campaign's templates that depend on fields of the row.

    Conditions on what a loop or a `set` made up inside the template are not among them.
    """

    def __init__(self, campaign: Campaign) -> None:
        """Takes any campaign: a template that Jinja cannot read has no forks."""
        self._forks: list[_Fork] = []
        sources = {partial.name: partial.text for partial in campaign.partials}
        environment = make_environment(sources, values=read_values(campaign.data))
        self._globals = dict(environment.globals)
        for template in (*campaign.templates(), *campaign.partials):
            try:
                tree = environment.parse(template.text)
                self._forks += _forks(tree, environment)
            except Exception:  # noqa: S112 - reported when the template is compiled
                continue

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._forks)

    def taken(
        self, row: Mapping[str, object], *, email: str = "", rows: Sequence[Mapping[str, object]] = ()
    ) -> frozenset[Way]:
        """The ways that the message takes for a row, with the `rows` that share it, if there are any.  Never raises."""
        variables = {**self._globals, "email": email, **row, "row": row, **({"rows": list(rows)} if rows else {})}
        found = set()
        for number, fork in enumerate(self._forks):
            reset_ranges()
            try:
                found.add((number, fork(variables)))
            except Exception:
                found.add((number, _UNDECIDED))
        return frozenset(found)


class Cover:
    """Chooses rows that between them take every way that any row takes.  Remembers no more than a row for each way."""

    def __init__(self) -> None:
        self._seen: set[Way] = set()
        self._kept: dict[int, frozenset[Way]] = {}

    def offer(self, number: int, ways: frozenset[Way]) -> bool:
        """Whether row `number` shows something that no row before it did; the first one always does."""
        is_new = not self._kept or not ways <= self._seen
        if is_new:
            self._seen |= ways
            self._kept[number] = ways
        return is_new

    def chosen(self) -> list[int]:
        """The rows, in their order: greedily, those first that show most of what is still missing."""
        missing, left, found = set(self._seen), dict(self._kept), list[int]()
        while left and (missing or not found):
            best = max(left, key=lambda number: (len(left[number] & missing), -number))
            missing -= left.pop(best)
            found.append(best)
        return sorted(found)

    @property
    def ways(self) -> int:
        """How many ways were seen."""
        return len(self._seen)


def _forks(tree: nodes.Template, environment: MessageEnvironment) -> Iterator[_Fork]:
    alternatives = {id(other) for node in tree.find_all(nodes.If) for other in node.elif_}
    made_up = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    for node in tree.find_all((nodes.If, nodes.CondExpr, nodes.For)):
        match node:
            case nodes.If() if id(node) not in alternatives:
                questions = [node.test, *(other.test for other in node.elif_)]
            case nodes.CondExpr():
                questions = [node.test]
            case nodes.For():
                questions = [node.iter]
            case _:
                continue
        if any(_names(question, environment) & made_up for question in questions):
            continue
        asked = [_compiled(question, environment) for question in questions]
        yield _times(asked[0]) if isinstance(node, nodes.For) else _first_true(asked)


def _names(question: nodes.Node, environment: MessageEnvironment) -> set[str]:
    return meta.find_undeclared_variables(_alone(question, environment))


def _compiled(question: nodes.Node, environment: MessageEnvironment) -> TemplateExpression:
    return TemplateExpression(environment.from_string(_alone(question, environment)), undefined_to_none=False)


def _alone(question: nodes.Node, environment: MessageEnvironment) -> nodes.Template:
    """A template that does nothing but work out `question`."""
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), cast("nodes.Expr", question), lineno=1)]
    tree = nodes.Template(body, lineno=1)
    tree.set_environment(environment)
    return tree


def _first_true(questions: list[TemplateExpression]) -> _Fork:
    def taken(variables: dict[str, object]) -> int:
        for number, question in enumerate(questions):
            if question(variables):
                return number
        return len(questions)

    return taken


def _times(question: TemplateExpression) -> _Fork:
    """Never, once or several times round a loop."""

    def taken(variables: dict[str, object]) -> int:
        items = cast("Iterable[object]", question(variables))
        return sum(1 for _ in islice(items, 2))

    return taken
