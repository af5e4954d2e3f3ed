"""How the API server words a refusal: what it was doing, what is wrong, and a code of gRPC that goes with a status."""

from collections.abc import Iterator
from contextlib import contextmanager

INVALID, NOT_FOUND, TAKEN, DENIED, ABORTED, INTERNAL, UNAUTHENTICATED = 3, 5, 6, 7, 10, 13, 16

STATUSES = {INVALID: 400, NOT_FOUND: 404, TAKEN: 409, DENIED: 403, ABORTED: 409, INTERNAL: 500, UNAUTHENTICATED: 401}


class Refusal(Exception):
    """A request that is refused.

    Args:
        code: Code of gRPC.
        message: The whole chain, outermost first.
        cause: What the user is to read.
    """

    def __init__(self, code: int, message: str, cause: str) -> None:
        super().__init__(message)
        self.code, self.message, self.cause = code, message, cause

    @property
    def status(self) -> int:
        """HTTP status."""
        return STATUSES[self.code]

    def body(self) -> dict[str, object]:
        """The answer as the gateway of gRPC writes it."""
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": self.code, "message": self.cause}
        return {"code": self.code, "message": self.message, "details": [detail]}


@contextmanager
def during(what: str) -> Iterator[None]:
    """Says what was being done when a refusal came."""
    try:
        yield
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{what}: {refusal.message}", refusal.cause) from None


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns a refusal into an error of the server's own, as it does where it did not expect one."""
    try:
        yield
    except Refusal as refusal:
        message = f"InternalServerError: {what}: {refusal.message}"
        raise Refusal(INTERNAL, message, "Internal Server Error") from None


def invalid(cause: str) -> Refusal:
    """The request cannot be right."""
    return Refusal(INVALID, f"Invalid input error: {cause}", cause)


def not_found(kind: str, key: str) -> Refusal:
    """There is no such thing."""
    cause = f"{kind} {key} not found"
    return Refusal(NOT_FOUND, f"ResourceNotFoundError: {cause}", cause)


def taken(cause: str) -> Refusal:
    """The name is in use."""
    return Refusal(TAKEN, f"Already exist error: {cause}", cause)


def denied(user: str, namespace: str, verb: str, resource: str) -> Refusal:
    """The user has no right in the namespace."""
    attributes = f"Namespace:{namespace},Verb:{verb},Group:pipelines.kubeflow.org,Version:v1beta1,Resource:{resource}"
    cause = f"User '{user}' is not authorized with reason:  (request: &ResourceAttributes{{{attributes},"
    cause += "Subresource:,Name:,})"
    return Refusal(DENIED, f"PermissionDenied: {cause}: Unauthorized access", cause)


def unauthenticated() -> Refusal:
    """The request says nothing valid about who makes it."""
    cause = "Failed to check authorization. User identity is empty in the request header"
    reason = "[Request header error: there is no user identity header., Authentication failure]"
    return Refusal(UNAUTHENTICATED, f"Unauthenticated: {cause}: {reason}", cause)
