"""A bearer token in a file, which may be renewed at any time."""

import re
from pathlib import Path

from kfp import client as kfp_client
from kfp_server_api import Configuration

from kfp_finetune.client.server.calls import LoginError
from kfp_finetune.errors import refuse

TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenFile(kfp_client.token_credentials_base.TokenCredentialsBase):
    """Credentials that are read anew at each call.

    Args:
        path: The file.
    """

    def __init__(self, path: str):
        self._path = path

    def refresh_api_key_hook(self, config: Configuration) -> None:
        """Gives a client the token; kfp_server_api calls it before each request.

        Raises:
            LoginError: If there is none in the file now.
        """
        config.api_key["authorization"] = self.read()
        config.api_key_prefix["authorization"] = "Bearer"

    def read(self) -> str:
        """The token.

        Raises:
            LoginError: If the file cannot be read, or holds anything but one token.
        """
        try:
            token = Path(self._path).read_text().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise refuse(
                "--token-file", f"{self._path}, which cannot be read ({reason})", "a file", "Check it.", LoginError
            ) from error
        if not TOKEN.fullmatch(token):
            given = f"{self._path}, which holds {'nothing' if not token else 'more than a token'}"
            raise refuse("--token-file", given, "a file with one token", "Write the token alone to it.", LoginError)
        return token
