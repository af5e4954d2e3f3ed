"""The client of S3 that publishes, and what went wrong with it, as a person needs it."""

from typing import Any

from kfp_finetune.components.export_model.publish.targets import WHAT, S3Target
from kfp_finetune.errors import refuse
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.retries import Transient
from kfp_finetune.sources.s3_client import S3Options, make_client, open_session
from kfp_finetune.sources.s3_errors import ABSENT, REFUSED
from kfp_finetune.sources.s3_errors import explain as explain_reading

WORKERS = 8
"""Requests at once."""

DAMAGED = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody")
"""What a server says that got other bytes than were sent."""

SECRET = "Put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the step's Secret, or give the pod a role."


def connect(target: S3Target, options: S3Options) -> Any:
    """A client of boto3, whose credentials are the environment's, a role's or a file's.

    Args:
        target: Where is to be published, for messages.
        options: How S3 is reached.

    Raises:
        UserError: If there are no credentials, or an option has no meaning.
    """
    session = open_session(options)
    if not session.get_credentials():
        raise refuse(WHAT, f"{target.address} without credentials", "credentials that may write there", SECRET)
    try:
        return make_client(session, options, WORKERS, request_checksum_calculation="when_required")
    except ValueError as error:
        raise explain(target, error) from error


def explain(target: S3Target, error: Exception) -> Exception:
    """The error to raise instead of one of boto3 or of its HTTP client.

    Args:
        target: Where is to be published.
        error: What was raised.

    Returns:
        `Transient` where another attempt is worth it, `UserError` where a person must act, or the error itself.
    """
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
        return explain_reading(WHAT, target.address, error)
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = redact(str(error.response.get("Error", {}).get("Message", "")))[:300]
    if code in DAMAGED:
        return Transient(f"the bytes were damaged on their way ({code})")
    if code == "NoSuchUpload":
        given = f"{target.address}, where what this run uploads was given up meanwhile"
        return refuse(WHAT, given, "one run at a time that publishes one export", "Run again.")
    if code in ABSENT:
        given = f"{target.address}, where there is no bucket {target.bucket} ({code})"
        return refuse(WHAT, given, "a bucket that is there", "Make it, or check the name and the endpoint.")
    if code in REFUSED or status in (401, 403):
        return refuse(
            WHAT,
            f"{target.address}, which may not be written ({code}, {error.operation_name}): {message}",
            "credentials that may list the bucket, and read, write and delete its objects",
            SECRET,
        )
    return explain_reading(WHAT, target.address, error)
