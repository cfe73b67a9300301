"""Whose message is made when several are wanted at once."""

from __future__ import annotations

import anyio

from bulkmail.console.renderer import Renderer
from bulkmail.console.worker import RenderedAnswer, Request


class Slow(Renderer):
    """Answers with the row's number, once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = anyio.Event()

    async def _ask(self, request: Request) -> RenderedAnswer:
        await self.may_go_on.wait()
        return RenderedAnswer(subject=str(request.row))


async def test_page_keeps_its_message_while_a_draft_of_the_page_before_it_comes_late() -> None:
    """A saved page showed nothing when the last draft that was typed arrived after it."""
    renderer, shown = Slow(), {}

    async def show(name: str, row: int, *, is_typing: bool) -> None:
        render = renderer.render_newest if is_typing else renderer.render
        shown[name] = await render(Request("spring", row, {}))

    async with anyio.create_task_group() as tasks:
        for row, (name, is_typing) in enumerate(
            [("first", False), ("typed", True), ("page", False), ("last typed", True)], start=1
        ):
            tasks.start_soon(lambda name, row, is_typing: show(name, row, is_typing=is_typing), name, row, is_typing)
            await anyio.wait_all_tasks_blocked()
        renderer.may_go_on.set()
    assert {name: one and one.subject for name, one in shown.items()} == {
        "first": "1", "typed": None, "page": "3", "last typed": "4",
    }  # fmt: skip
