"""How S3 is reached."""

import os
from dataclasses import dataclass
from typing import Any

from kfp_finetune.sources import retries


@dataclass(frozen=True)
class S3Options:
    """How S3 is reached. Credentials are boto3's: the environment, a role of the pod, a file of the user.

    Args:
        endpoint: URL of the server; empty for AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or Amazon's.
        region: Empty for AWS_REGION, AWS_DEFAULT_REGION, or the server's own.
        addressing_style: "path", "virtual", or "auto": path with an endpoint, virtual with Amazon.
    """

    endpoint: str = ""
    region: str = ""
    addressing_style: str = "auto"


def open_session(options: S3Options) -> Any:
    """A session of boto3, which finds the credentials."""
    import boto3

    return boto3.session.Session(region_name=options.region or os.environ.get("AWS_REGION") or None)


def make_client(session: Any, options: S3Options, connections: int, **config: Any) -> Any:
    """A client that asks once and ends what stalls: who uses it makes the attempts.

    Args:
        session: From `open_session`.
        options: How S3 is reached.
        connections: Requests at once.
        config: More of botocore's configuration.

    Raises:
        ValueError: If an option has no meaning.
    """
    from botocore.config import Config

    authority = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    configuration = Config(
        s3={"addressing_style": options.addressing_style},
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=retries.STALL_SECONDS,
        read_timeout=retries.STALL_SECONDS,
        max_pool_connections=connections,
        response_checksum_validation="when_required",
        **config,
    )
    return session.client("s3", endpoint_url=options.endpoint or None, verify=authority, config=configuration)
