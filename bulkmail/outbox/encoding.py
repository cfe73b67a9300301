"""How the model's values are written into columns and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass

import msgspec

from bulkmail.model.address import Address
from bulkmail.model.campaign import Campaign
from bulkmail.model.delivery import Attempt
from bulkmail.model.errors import OutboxError
from bulkmail.model.literal import Literal, read_number
from bulkmail.model.recipient import Place, Recipient
from bulkmail.model.reply import Reply
from bulkmail.model.status import Status

STATUS_OF: dict[str, Status] = {status.value: status for status in Status}  # four times as fast as Status(text)


def written(value: object) -> msgspec.Raw:
    """For encoders of JSON: what stands for a `Literal`.  Raises `TypeError` for anything else."""
    if isinstance(value, Literal):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_to_json = msgspec.json.Encoder(enc_hook=written).encode
_from_json = msgspec.json.Decoder(dict[str, object], float_hook=read_number).decode


def storable(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 and so SQLite cannot hold, replaced by `?`."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def encode_texts(fields: dict[str, str]) -> bytes:
    """What `encode_fields` makes of cells that are all text without a lone surrogate."""
    return _to_json(fields)


def encode_fields(fields: Mapping[str, object], *, place: Place | None) -> bytes:
    """The cells as JSON.  Dates, decimals and the like become text; raises `OutboxError` for what JSON cannot say."""
    cells = fields if type(fields) is dict else dict(fields)
    try:
        return _to_json(cells)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(cells, enc_hook=float), ensure_ascii=False).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        raise OutboxError(
            f"{place or 'a row'}: a field cannot be recorded: {error}",
            hint="use text, numbers, true, false, null, lists and objects of such",
        ) from error


decode_fields: Callable[[bytes], dict[str, object]] = _from_json
"""The cells that `encode_fields` wrote."""


def decode_recipient(address: str, *, name: str, fields: bytes, source: str, line: int) -> Recipient:
    """The recipient of a stored row.  Its address was checked when it came in."""
    local, _, domain = address.rpartition("@")
    return Recipient(Address(local, domain), name, _from_json(fields), Place(source, line))


def encode_campaign(campaign: Campaign) -> bytearray:
    """The whole campaign, attachments included, as MessagePack.  Raises `OutboxError`, and `MemoryError`."""
    # Made here and large enough: when msgspec 0.22 finds no memory to enlarge a buffer of its own, the process crashes.
    buffer = bytearray(_most_bytes(campaign))
    try:
        msgspec.msgpack.Encoder().encode_into(campaign, buffer)
        return buffer
    except (UnicodeEncodeError, OverflowError) as error:
        raise OutboxError(f"the campaign {campaign.name!r} cannot be recorded: {error}") from error


def _most_bytes(value: object) -> int:
    """At least as many as `value` takes in MessagePack."""
    match value:
        case bytes():
            return 5 + len(value)
        case str():
            return 5 + 4 * len(value)
        case tuple():
            return 5 + sum(map(_most_bytes, value))
        case _ if is_dataclass(value):
            return 5 + sum(_most_bytes(part.name) + _most_bytes(getattr(value, part.name)) for part in fields(value))
        case _:
            return 9


def decode_campaign(data: bytes) -> Campaign:
    """The campaign that `encode_campaign` wrote.  Raises `msgspec.DecodeError` when it is damaged."""
    return msgspec.msgpack.decode(data, type=Campaign)


def attempt_columns(attempt: Attempt) -> tuple[object, ...]:
    """The columns of the table `attempt` behind `delivery`."""
    event, verdict = attempt.event, attempt.verdict
    ended: tuple[object, ...]
    if isinstance(event, Reply):
        ended = (event.stage._value_, event.code, storable(event.enhanced), storable(event.text), None)
    else:
        ended = (event.stage._value_, None, "", storable(event.what), event.kind._value_)
    judged = (verdict.outcome._value_, verdict.scope._value_, storable(verdict.says), verdict.counts)
    return (attempt.at, attempt.took, storable(attempt.relay), *ended, *judged)
