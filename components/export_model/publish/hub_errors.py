"""What went wrong while writing to the Hub, as a person needs it."""

import os
from urllib.parse import urlsplit

from kfp_finetune.components.export_model.publish.targets import WHAT, HubTarget
from kfp_finetune.errors import refuse
from kfp_finetune.sources.hub_client import endpoint
from kfp_finetune.sources.hub_errors import explain as explain_reading
from kfp_finetune.sources.retries import Transient, plain

TOKEN_VARIABLE = "HF_TOKEN"
SECRET = f"Put a token that may write there into {TOKEN_VARIABLE} (on a cluster, into the Secret that the step names)."


def token_of(target: HubTarget) -> str:
    """The token that publishes.

    Args:
        target: Where, for messages.

    Raises:
        UserError: If there is none.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        given = f"{target.address} without a token: {TOKEN_VARIABLE} is not set"
        raise refuse(WHAT, given, "a token that may write there", SECRET)
    return token


def explain(target: HubTarget, error: Exception) -> Exception:
    """The error to raise instead of one of `huggingface_hub` or of its HTTP client.

    Args:
        target: Where is to be published.
        error: What was raised.

    Returns:
        `Transient` where another attempt is worth it, `UserError` where a person must act, or the error itself.
    """
    from huggingface_hub import constants, errors

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return explain(target, error.__cause__)
    if not isinstance(error, errors.HfHubHTTPError):
        return explain_reading(WHAT, target.address, target.repository, error)
    status, asked = error.response.status_code, str(error.response.request.url)
    if urlsplit(asked).netloc != urlsplit(endpoint() or constants.ENDPOINT).netloc:
        return Transient(f"the Hub's storage answered {status}")  # A signed address that is too old is made anew.
    if status in (409, 412):
        return Transient("somebody else wrote to the branch meanwhile")
    if status == 401:
        given = f"{target.address}, where the Hub does not know the token in {TOKEN_VARIABLE}: {plain(error)}"
        return refuse(WHAT, given, "a token that is valid", f"It may be mistyped, revoked or too old. {SECRET}")
    if status == 403:
        given = f"{target.address}, which the token in {TOKEN_VARIABLE} may not write: {plain(error)}"
        return refuse(WHAT, given, "a token with the right to write there, and to create what is not there", SECRET)
    if isinstance(error, errors.RepositoryNotFoundError):
        given = f"{target.address}, where there is no {target.repository.partition('/')[0]} that the token may see"
        return refuse(WHAT, given, "an organisation or user that is there", f"Check the name for a typo. {SECRET}")
    return explain_reading(WHAT, target.address, target.repository, error)


def is_of_xet(error: Exception) -> bool:
    """Whether hf_xet raised an error, rather than the Hub's HTTP client; it has few classes of its own."""
    return isinstance(error, ConnectionError | TimeoutError | RuntimeError) or "hf_xet" in type(error).__module__
