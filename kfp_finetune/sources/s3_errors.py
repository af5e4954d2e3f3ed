"""What went wrong with S3, as a person needs it: the name, the credentials, the network."""

from kfp_finetune.errors import refuse
from kfp_finetune.publishing import SourceChanged
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.retries import SERVER_STATUSES, Transient, distrust, plain, seconds_asked

ABSENT = ("NoSuchBucket", "NoSuchKey", "404", "NotFound")
REFUSED = (
    "AccessDenied",
    "403",
    "401",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "RequestTimeTooSkewed",
)
CHANGED = ("PreconditionFailed", "412", "InvalidRange", "416")


def explain(what: str, uri: str, error: Exception) -> Exception:
    """The error to raise instead of one of boto3 or of its HTTP client.

    Args:
        what: "dataset" or "model".
        uri: The source as the user wrote it.
        error: What was raised.

    Returns:
        `Transient` where another attempt is worth it, `UserError` where a person must act, or the error itself.
    """
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    uri = redact(uri)
    if isinstance(error, exceptions.ClientError):
        return _explain_answer(what, uri, error.response)
    if isinstance(error, exceptions.SSLError):
        return distrust(what, uri, error)
    if isinstance(
        error,
        exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError | HTTPError | OSError,
    ):
        return Transient(f"{type(error).__name__}: {plain(error)}")
    if isinstance(error, exceptions.ParamValidationError | ValueError):
        return refuse(what, f"{uri}: {plain(error)}", "s3://BUCKET/PREFIX and an endpoint's URL", "Correct them.")
    if isinstance(error, exceptions.BotoCoreError):
        return refuse(
            what, f"{uri}: {plain(error)}", "credentials and a region", "Check the credentials' Secret or role."
        )
    return error


def _explain_answer(what: str, uri: str, response: dict) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    message = redact(str(response.get("Error", {}).get("Message", "")))[:300]
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    if code in CHANGED:
        return refuse(
            what,
            f"{uri}, whose objects changed while they were fetched",
            "objects that stay as they are",
            "Run again once nothing writes there.",
            SourceChanged,
        )
    if code in ABSENT:
        return refuse(what, f"{uri}, which is not there ({code})", "a bucket and key that exist", "Check the address.")
    if code in REFUSED or status in (401, 403):
        return refuse(
            what,
            f"{uri}, which may not be read ({code}): {message}",
            "credentials that may list the bucket and read its objects",
            "Put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the step's Secret, or give the pod a role.",
        )
    if status in SERVER_STATUSES:
        asked = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
        return Transient(f"the server answered {status} {code}", seconds_asked(asked))
    return refuse(what, f"{uri}, where the server answered {status} {code}: {message}", "S3", "Check the endpoint.")
