"""Work whose failure is a result."""

import traceback
from collections.abc import Callable
from typing import TypeVar

from kfp_finetune.errors import StepError, UserError

LAST_LINES = 20
"""Of a failure's message that are kept."""

T = TypeVar("T")


def attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """The result of some work, or None and why there is none.

    Args:
        work: Whatever it raises is the reason.
    """
    try:
        return work(), ""
    except (UserError, StepError) as error:
        print(error, flush=True)
        return None, _last(str(error))
    except Exception as error:
        traceback.print_exc()
        return None, _last(f"{type(error).__name__}: {error}")


def _last(message: str) -> str:
    return "\n".join(message.strip().splitlines()[-LAST_LINES:]) or "no message"
