"""What is made only when it is first used: the methods of dataclasses, and regular expressions."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any, AnyStr, cast

# -- Dataclasses whose methods are made when the first instance is, as most classes of most commands never have one.
#
# The standard library compiles six methods of a frozen class where it is declared, which takes a millisecond.


_Fields = tuple[dataclasses.Field[Any], ...]

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type], type]:
        """As `dataclasses.dataclass`, for keyword arguments, with no difference for users of the class.

        There are two exceptions: `inspect.signature` shows its parameters only when there is an instance, and `InitVar`
        is not supported.
        """

        def made(declared: type) -> type:
            cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(declared)
            parts = dataclasses.fields(cls)

            def __init__(self: object, *values: object, **named: object) -> None:
                cls.__init__ = _init_of(cls, parts, frozen=frozen)
                cls.__init__(self, *values, **named)

            own = vars(declared)
            cls.__init__ = __init__
            if "__repr__" not in own:
                cls.__repr__ = _repr_of(parts)
            if eq and "__eq__" not in own:
                values_of = _values_of(parts)
                cls.__eq__ = _eq_of(cls, values_of)
                if "__hash__" not in own:
                    cls.__hash__ = _hash_of(values_of) if frozen else None
            if frozen:
                cls.__setattr__, cls.__delattr__ = _refusals(cls, frozenset(part.name for part in parts))
                cls.__getstate__, cls.__setstate__ = _state_of(parts)
            return cls

        return made


def _init_of(cls: type, parts: _Fields, *, frozen: bool) -> Callable[..., None]:
    """That of a class with the same fields, by the standard library."""
    same: list[tuple[str, type, Any]] = []
    for part in parts:
        given: dict[str, Any] = {"default": part.default, "default_factory": part.default_factory}
        options = {name: value for name, value in given.items() if value is not dataclasses.MISSING}
        same.append((part.name, object, dataclasses.field(**options, init=part.init, kw_only=part.kw_only)))
    after = getattr(cls, "__post_init__", None)
    namespace = {} if after is None else {"__post_init__": after}
    twin = dataclasses.make_dataclass(cls.__name__, same, repr=False, eq=False, frozen=frozen, namespace=namespace)
    made: Callable[..., None] = twin.__init__  # type: ignore[misc]
    return made


def _values_of(parts: _Fields) -> Callable[[object], object]:
    names = [part.name for part in parts if part.compare]
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)


def _eq_of(cls: type, values_of: Callable[[object], object]) -> Callable[[object, object], bool]:
    def __eq__(self: object, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values_of(self) == values_of(other)

    return __eq__


def _hash_of(values_of: Callable[[object], object]) -> Callable[[object], int]:
    def __hash__(self: object) -> int:
        return values_of(self).__hash__()

    return __hash__


def _repr_of(parts: _Fields) -> Callable[[object], str]:
    names = [part.name for part in parts if part.repr]

    def __repr__(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return reprlib.recursive_repr()(__repr__)


def _refusals(cls: type, names: frozenset[str]) -> tuple[Callable[[object, str, object], None], Callable[..., None]]:
    """How setting and deleting of its fields is refused."""

    def __setattr__(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    return __setattr__, __delattr__


def _state_of(parts: _Fields) -> tuple[Callable[[object], list[object]], Callable[[object, list[object]], None]]:
    """What copying and pickling need where attributes cannot be set."""
    names = [part.name for part in parts]

    def __getstate__(self: object) -> list[object]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: object, state: list[object]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    return __getstate__, __setstate__


# -- Regular expressions that are compiled when they are first used: a run needs a tenth of those that there are.


def lazy_pattern(source: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What `re.compile` gives, as far as its attributes go: the first use of one compiles.

    For names of a module.  After the first use each method costs what it costs of a compiled pattern.  A `source` that
    is no regular expression raises `re.error` only then.
    """
    return cast("re.Pattern[AnyStr]", _LazyPattern(source, flags))


class _LazyPattern:
    """Takes over each attribute of the compiled pattern, such as `search`, when it is first asked for."""

    def __init__(self, source: str | bytes, flags: int) -> None:
        self.pattern = source
        self._flags = flags

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # copying and the like look for methods that no pattern has
            raise AttributeError(name)
        value = getattr(re.compile(self.pattern, self._flags), name)  # which `re` compiles once and keeps
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return f"lazy_pattern({self.pattern!r})"
