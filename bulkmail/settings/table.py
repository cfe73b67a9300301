"""What every table of `campaign.toml` has in common.  Imports pydantic: import it late."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _number_as_text(value: object) -> object:
    """`wait = 600` is as good as `wait = "600"`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Amount = Annotated[str | None, BeforeValidator(_number_as_text)]


class Table(BaseModel):
    """Every key may be left out here: what must be there is judged where its absence can be explained."""

    # Deferred, or each table is built once for itself and once more in the one above it.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
    expected: ClassVar[str] = "a table"
