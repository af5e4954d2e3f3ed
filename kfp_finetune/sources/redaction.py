"""Keeps secrets out of messages and logs."""

import re

USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<userinfo>[^\s/]*)@", re.IGNORECASE)
"""Up to the last @ before a slash: a password may hold one itself."""

QUERY = re.compile(r"(?P<before>(?P<scheme>[a-z][a-z0-9+.-]*)://[^\s?'\"]*)\?(?P<query>[^\s'\"]*)", re.IGNORECASE)
TOKEN = re.compile(r"(?<=Bearer )[^\s'\"]+|\bhf_\w{20,}")


def redact(text: str) -> str:
    """A text without what the URLs in it may hold of secrets: a user and password, a signed query, a Hub's token.

    What stands before the @ of hf://NAME@REVISION is no user, and a ? belongs to the path in file://, and in hf:// and
    s3:// unless it begins a query.

    Args:
        text: A URI as the user wrote it, or a message of a library or a server.
    """
    text = USERINFO.sub(_without_userinfo, text)
    text = QUERY.sub(lambda found: found[0] if _is_pattern(found) else found["before"], text)
    return TOKEN.sub("***", text)


def _is_pattern(found: re.Match[str]) -> bool:
    scheme = found["scheme"].lower()
    return scheme == "file" or (scheme in ("hf", "s3") and "=" not in found["query"])


def _without_userinfo(found: re.Match[str]) -> str:
    is_name = found["scheme"].lower() == "hf" and ":" not in found["userinfo"]
    return found[0] if is_name else f"{found['scheme']}://"
