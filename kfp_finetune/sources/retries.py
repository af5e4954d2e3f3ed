"""Tries again what a network or a server spoiled, with growing, random pauses and a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from kfp_finetune.errors import UserError, refuse
from kfp_finetune.publishing import Interrupted
from kfp_finetune.sources.redaction import redact

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 300.0
"""A server that asks for a longer pause is given up after the attempts that are left."""

STALL_SECONDS = 30.0
"""A connection on which nothing comes for so long is given up, and tried again."""

SERVER_STATUSES = (408, 429, 500, 502, 503, 504)
"""HTTP's answers that may be others the next time."""

Result = TypeVar("Result")


class Transient(Exception):
    """A failure that may not come again.

    Args:
        message: What happened, in a line.
        pause_seconds: How long the server asked to wait; 0 if it did not.
    """

    def __init__(self, message: str, pause_seconds: float = 0.0):
        super().__init__(message)
        self.pause_seconds = pause_seconds


def patiently(what: str, uri: str, call: Callable[[], Result], pause: Callable[[float], None] = time.sleep) -> Result:
    """Calls until it succeeds, at most `ATTEMPTS` times.

    Args:
        what: Name of the parameter that asked for the source, for messages.
        uri: The source as the user wrote it.
        call: Raises `Transient` where another attempt is worth it.
        pause: Sleeps for seconds.

    Raises:
        Interrupted: If the last attempt failed too.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(Transient),
        stop=stop_after_attempt(ATTEMPTS),
        wait=_pause_seconds,
        before_sleep=_say,
        reraise=True,
        sleep=pause,
    )
    try:
        return retrying(call)
    except Transient as error:
        raise refuse(
            what,
            f"{redact(uri)}, where {ATTEMPTS} attempts failed, the last because of the network or the server: {error}",
            "a server that can be reached and answers",
            "Check the address, the proxy and the network, then run again: whole parts are kept.",
            Interrupted,
        ) from error


def _pause_seconds(state: RetryCallState) -> float:
    growing = wait_exponential_jitter(initial=FIRST_PAUSE_SECONDS, max=20, jitter=FIRST_PAUSE_SECONDS)(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_seconds if isinstance(error, Transient) else 0.0
    return min(max(growing, asked), LONGEST_PAUSE_SECONDS)


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    print(f"attempt {state.attempt_number} of {ATTEMPTS}: {error}; again in {pause:.1f} s", flush=True)


def plain(error: BaseException) -> str:
    """An error's first line, without the secrets that `redact` knows."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    return redact(line)[:300]


def seconds_asked(retry_after: str) -> float:
    """Seconds that a Retry-After header asks for; 0 if it is empty, or a date."""
    return float(retry_after) if retry_after.isdecimal() else 0.0


def distrust(what: str, uri: str, error: BaseException) -> UserError:
    """The error for a server whose certificate no known authority vouches for.

    Args:
        what: Name of the parameter that asked for the source.
        uri: The source, redacted.
        error: What the HTTP client said.
    """
    return refuse(
        what,
        f"{uri}, whose server is not trusted: {plain(error)}",
        "a server with a certificate of a known authority",
        "Name your authority's certificate file in SSL_CERT_FILE.",
    )
