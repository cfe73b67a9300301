"""Many small cases in one test: what fails of them is said case by case, as if each were a test of its own."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable


def every(cases: Iterable[tuple[str, tuple[object, ...]]]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Call the check with the arguments of each case; the test fails with the names and messages of all that fail.

    For rules and tables with hundreds of lines, where a parametrised test would cost far more than what it checks.
    """
    named = list(cases)
    assert named, "a test without a case checks nothing"

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            failures = []
            for name, arguments in named:
                try:
                    check(*arguments)
                except Exception as error:
                    line = traceback.extract_tb(error.__traceback__)[-1].lineno
                    failures.append(f"[{name}] line {line}: {type(error).__name__}: {error}")
            assert not failures, f"{len(failures)} of {len(named)} cases fail:\n" + "\n".join(failures)

        test.__name__, test.__qualname__ = check.__name__, check.__qualname__
        test.__module__, test.__doc__ = check.__module__, check.__doc__
        return test

    return decorate
