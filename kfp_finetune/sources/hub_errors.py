"""What went wrong with the Hub, as a person needs it: the name, the token, the gate, the network."""

from kfp_finetune.errors import refuse
from kfp_finetune.sources.hub_client import endpoint
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.retries import SERVER_STATUSES, Transient, distrust, plain, seconds_asked

PASSING_STATUSES = (*SERVER_STATUSES, 425)
"""What an answer says that may be another the next time."""


def explain(what: str, uri: str, repository: str, error: Exception) -> Exception:
    """The error to raise instead of one of `huggingface_hub` or of its HTTP client.

    Args:
        what: "dataset" or "model".
        uri: The source as the user wrote it.
        repository: Its name on the Hub.
        error: What was raised.

    Returns:
        `Transient` where another attempt is worth it, `UserError` where a person must act, or the error itself.
    """
    import httpx2
    from huggingface_hub import errors

    uri = redact(uri)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return refuse(what, f"{uri} while HF_HUB_OFFLINE is set", "a path on the volume", "Unset HF_HUB_OFFLINE.")
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(what, uri, repository, error)
    if isinstance(error, httpx2.ConnectError) and "CERTIFICATE" in str(error).upper():
        return distrust(what, uri, error)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return refuse(
            what,
            f"{uri} with HF_ENDPOINT={_hub()}: {plain(error)}",
            "an endpoint such as https://hub.example.com",
            "Correct HF_ENDPOINT; without it, the usual Hub is asked.",
        )
    if isinstance(error, httpx2.LocalProtocolError):
        return refuse(
            what, f"{uri} with a request that cannot be sent", "a token of plain characters", "Check HF_TOKEN."
        )
    if isinstance(error, httpx2.TooManyRedirects):
        return refuse(
            what,
            f"{uri}, where the server at {_hub()} sends the request in circles",
            "a Hub that answers",
            "Check HF_ENDPOINT and the proxy.",
        )
    if isinstance(error, httpx2.RequestError):
        return Transient(f"{type(error).__name__}: {plain(error)}")
    if isinstance(error, errors.HFValidationError):
        return refuse(what, f"{uri}: {plain(error)}", "hf://ORGANISATION/NAME", "Copy the name from its page.")
    if isinstance(error, KeyError | TypeError | AttributeError | IndexError):
        return refuse(
            what,
            f"{uri}, where {_hub()} sent an answer that is no answer of a Hub: {type(error).__name__} {plain(error)}",
            "a Hub",
            "Check HF_ENDPOINT and the proxy.",
        )
    if isinstance(error, ValueError):
        return Transient(f"an answer that is no answer of a Hub: {plain(error)}")
    return error


def _explain_answer(what: str, uri: str, repository: str, error: Exception) -> Exception:
    from huggingface_hub import errors, get_token

    status = error.response.status_code  # type: ignore[attr-defined]
    token = "the token that was given" if get_token() else "no token, since HF_TOKEN is not set"
    secret = "Put a token that may read it into HF_TOKEN (on a cluster, into the Secret that the step names)."
    if isinstance(error, errors.GatedRepoError):
        return refuse(
            what,
            f"{uri}, a gated repository that needs its owner's consent, with {token}",
            "a repository whose conditions the token's account has accepted",
            f"Accept them on the page of {repository}. {secret}",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return refuse(
            what,
            f"{uri}, which is no {what} on {_hub()}, or a private one; asked with {token}",
            f"a path that exists, or the name of a {what} that may be read",
            f"Check the name for a typo. If it is private: {secret}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return refuse(
            what, f"{uri}, which has no such revision", "a branch, tag or commit", "Check what follows the @."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return refuse(what, f"{uri}, where a file is gone", "files that stay", "Check that the repository is whole.")
    if status in (401, 403):
        return refuse(
            what,
            f"{uri}, which may not be read with {token}: {plain(error)}",
            "a token that is valid and may read it",
            secret,
        )
    if status in PASSING_STATUSES:
        asked = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
        return Transient(f"the server answered {status}", seconds_asked(asked))
    return refuse(what, f"{uri}, where the server answered {status}: {plain(error)}", "a Hub", "Check HF_ENDPOINT.")


def _hub() -> str:
    return redact(endpoint() or "the Hub")
