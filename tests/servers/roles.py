"""What gives credentials to a pod: an endpoint for containers, and a security token service."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

EXPIRES = "2100-01-01T00:00:00Z"
ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{access}</AccessKeyId>
<SecretAccessKey>{secret}</SecretAccessKey><SessionToken></SessionToken><Expiration>{expires}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>"""


@dataclass
class RoleServer:
    """The state; `refuses` may be set at any time."""

    url: str = ""
    tokens: list[str] = field(default_factory=list)
    refuses: bool = False


@contextmanager
def serve(access_key: str, secret_key: str) -> Iterator[RoleServer]:
    """Runs both for as long as the context lasts.

    Args:
        access_key: Of the credentials that a token is given for.
        secret_key: Of the same.
    """
    state = RoleServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.tokens.append(self.headers["Authorization"])
            given = {"AccessKeyId": access_key, "SecretAccessKey": secret_key, "Token": "", "Expiration": EXPIRES}
            self.reply(json.dumps({"Message": "no"} if state.refuses else given))

        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            state.tokens.append(sent["WebIdentityToken"][0])
            given = ANSWER.format(access=access_key, secret=secret_key, expires=EXPIRES)
            self.reply(REFUSAL if state.refuses else given)

        def reply(self, text: str) -> None:
            self.send_response(403 if state.refuses else 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
