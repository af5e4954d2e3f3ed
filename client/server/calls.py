"""Calls to Kubeflow Pipelines: made again while nothing answers, and refused in words that say what to do."""

import json
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

import kfp_server_api
import urllib3
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from kfp_finetune.errors import Problem, UserError

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 30.0
"""For how long a question is asked again while the server does not answer."""

LONGEST_TEXT = 400


class AwayError(UserError):
    """The server did not answer, or not now: another attempt may be answered."""


class BusyError(AwayError):
    """The server, or a proxy before it, said that it is busy."""


class LoginError(UserError):
    """The server does not know who asks."""


class ConflictError(UserError):
    """Something of this name is there already."""


class NotFoundError(UserError):
    """What was named is not there."""


def ask(
    what: str, call: Callable[..., Answer], *args: Any, patience: float = PATIENCE_SECONDS, **kwargs: Any
) -> Answer:
    """Makes a call that may be made twice, again and again while the server does not answer.

    Args:
        what: What the call is for, to follow "to": "read the run".
        call: A method of kfp_server_api.
        args: For the call.
        patience: Seconds for which it is made again.
        kwargs: For the call.

    Raises:
        AwayError: If the server does not answer, or not now.
        LoginError: If the server refuses the credentials.
        NotFoundError: If what is asked for is not there.
        UserError: If the server refuses the right or the values.
    """
    return _insisting(AwayError, patience)(once, what, call, *args, **kwargs)


def make(create: Callable[[], Answer], find: Callable[[], Answer | None]) -> Answer:
    """Makes something once, whatever becomes of the answer: before it is tried again, it is looked for.

    A server that is busy, or a proxy before it, may have made it all the same.

    Args:
        create: Makes it, by `once`.
        find: What was made, or None.

    Raises:
        AwayError: If the server does not answer, or not now, and it is not there.
        ConflictError: If something of this name is there already, but not what is looked for.
        UserError: As `once`.
    """
    for attempt in _insisting(BusyError, PATIENCE_SECONDS):
        with attempt:
            try:
                return create()
            except (AwayError, ConflictError):
                found = find()
                if found is None:
                    raise
                return found
    raise AssertionError("the last attempt returns or raises")


def _insisting(error: type[UserError], seconds: float) -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(error),
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(0.5, max=15),
        reraise=True,
    )


def once(what: str, call: Callable[..., Answer], *args: Any, **kwargs: Any) -> Answer:
    """Makes a call once.

    Args:
        what: What the call is for, to follow "to": "start the run".
        call: A method of kfp_server_api.
        args: For the call.
        kwargs: For the call.

    Raises:
        AwayError: If the server does not answer, or not now; whether it did anything is not known.
        ConflictError: If something of this name is there already.
        LoginError: If the server refuses the credentials.
        NotFoundError: If what is named is not there.
        UserError: If the server refuses the right or the values.
    """
    try:
        return call(*args, **kwargs)
    except kfp_server_api.ApiException as error:
        raise _refusal(what, error) from error
    except (urllib3.exceptions.HTTPError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.SSLError | ssl.SSLError):
            raise UserError([_untrusted(str(reason))]) from error
        raise AwayError([_away(what, str(reason))]) from error


def _refusal(what: str, error: kfp_server_api.ApiException) -> UserError:
    said = server_message(error)
    match error.status:
        case 401:
            mend = "Renew the token, or name a file that holds one (--token-file)."
            return LoginError(
                [Problem("credentials", f"none that the server accepts to {what} ({said})", "a login", mend)]
            )
        case 403:
            mend = "Check --namespace, or ask its owner or an administrator for the right."
            return UserError([Problem("rights", f"an account that may not {what} ({said})", "one that may", mend)])
        case 404:
            mend = "Check the name or id, the namespace and --host."
            return NotFoundError([Problem(what, f"something that is not there ({said})", "what the server has", mend)])
        case 409:
            return ConflictError([Problem(what, f"a name that is taken ({said})", "a new one", "Choose another name.")])
        case 429 | 503:
            return BusyError([_away(what, f"status {error.status}: {said}")])
        case 0 if "SSL" in said:
            return UserError([_untrusted(said)])
        case status if status == 0 or status >= 500:
            return AwayError([_away(what, f"status {status}: {said}")])
    return UserError(
        [Problem(what, f"what the server refuses ({said})", "what it accepts", "Correct it and try again.")]
    )


def _away(what: str, reason: str) -> Problem:
    return Problem(
        f"the server, asked to {what}",
        f"one that does not answer as it should ({reason.strip()})",
        "Kubeflow Pipelines that can be reached from here",
        "Check --host and the network; with kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80 it is "
        "http://localhost:8080.",
    )


def _untrusted(reason: str) -> Problem:
    return Problem(
        "the server's certificate",
        f"one that is not trusted ({reason.strip()})",
        "one that a known authority has signed",
        "Name the authority's certificate with --ca-file or SSL_CERT_FILE.",
    )


def server_message(error: kfp_server_api.ApiException) -> str:
    """What the server said in a refusal, without stack traces.

    Args:
        error: The refusal.
    """
    try:
        body = json.loads(error.body or "")
        details = [detail.get("message") for detail in body.get("details", [])]
        text = next(filter(None, [*details, body.get("message"), body.get("error_message"), body.get("error")]), "")
    except (ValueError, TypeError, AttributeError):
        text = ""
    return str(text or error.reason or error.status).strip()[:LONGEST_TEXT]
