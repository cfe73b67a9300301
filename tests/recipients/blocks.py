"""Reading a list by blocks, told row by row, to hold it against reading it by rows."""

from __future__ import annotations

import os
from collections.abc import Iterable

from bulkmail.model.recipient import BadRow, Place, PlainRows, Recipient, parse_mailbox
from bulkmail.recipients.list_reading import ListOptions
from bulkmail.recipients.list_source import open_list


def one_by_one(blocks: Iterable[PlainRows | Recipient | BadRow]) -> list[Recipient | BadRow]:
    """Every row of the blocks.  Asserts that what a block says of a row in brief is what there is to say."""
    rows: list[Recipient | BadRow] = []
    for block in blocks:
        if not isinstance(block, PlainRows):
            rows.append(block)
            continue
        assert block.rows
        for line, wire, name, key, fields in block.rows:
            _, address = parse_mailbox(wire)
            assert (address.wire, address.key) == (wire, key)
            assert type(fields) is dict and "\0" not in "".join(fields.values())
            "".join(fields.values()).encode()
            rows.append(Recipient(address, name, fields, Place(block.file, line)))
    return rows


def read_by_blocks(source: str | os.PathLike[str], options: ListOptions) -> tuple[list[Recipient | BadRow], list[str]]:
    """The rows and the notices."""
    with open_list(source, options) as people:
        return one_by_one(people.blocks()), people.notices
