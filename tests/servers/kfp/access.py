"""Who may do what: tokens, and rights in namespaces where there are several users."""

from dataclasses import dataclass, field

from servers.kfp.faults import Reply
from servers.kfp.refusals import denied, during, invalid, unauthenticated

USER = "user@example.com"
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>dex</title></head><body>Log in to Your Account</body></html>"
EMPTY = "in multi-user mode"


@dataclass
class Access:
    """The rules; a test may change them at any time.

    Args:
        multi_user: Whether namespaces keep users apart.
        tokens: Bearer tokens that are accepted; None asks nobody.
        gate: Who refuses a token: "kfp", the API server itself, which looks at it only where it asks for rights;
            "istio", a proxy that answers with 401; "dex", a proxy that sends the browser to its login page.
        namespaces: Where the user has rights.
    """

    multi_user: bool = False
    tokens: set[str] | None = None
    gate: str = "kfp"
    namespaces: set[str] = field(default_factory=set)

    def knows(self, headers: dict[str, str]) -> bool:
        """Whether a request says who makes it."""
        return self.tokens is None or headers.get("authorization", "").removeprefix("Bearer ") in self.tokens

    def refuse_at_gate(self, path: str, headers: dict[str, str]) -> Reply | None:
        """What a proxy in front answers to a request that has no valid token."""
        if self.gate == "kfp" or self.knows(headers):
            return None
        if path.startswith("/dex/"):
            return Reply(200, LOGIN_PAGE, "text/html; charset=utf-8")
        if self.gate == "dex":
            return Reply(302, b"", "text/html", {"Location": "/dex/auth?client_id=kubeflow&response_type=code"})
        return Reply(401, b"Jwt is expired", "text/plain", {"WWW-Authenticate": 'Bearer error="invalid_token"'})

    def check(self, headers: dict[str, str], namespace: str, verb: str, resource: str) -> None:
        """Refuses what the user has no right to."""
        if not self.knows(headers):
            raise unauthenticated()
        if self.multi_user and namespace not in self.namespaces:
            raise denied(USER, namespace, verb, resource)

    def check_run(self, headers: dict[str, str], namespace: str, verb: str, run: str = "") -> None:
        """As `check`, for runs."""
        if self.multi_user and not namespace:
            raise invalid(f"A run cannot have an empty namespace {EMPTY}")
        with during(f"Failed to access run {run}. Check if you have access to namespace {namespace}"):
            self.check(headers, namespace, verb, "runs")

    def check_schedule(self, headers: dict[str, str], namespace: str, verb: str) -> None:
        """As `check`, for recurring runs."""
        if self.multi_user and not namespace:
            raise invalid(f"a recurring run cannot have an empty namespace {EMPTY}")
        with during("failed to authorize with API"):
            self.check(headers, namespace, verb, "jobs")

    def check_experiment(self, headers: dict[str, str], namespace: str, verb: str) -> None:
        """As `check`, for experiments."""
        if self.multi_user and not namespace:
            raise invalid(f"An experiment cannot have an empty namespace {EMPTY}")
        with during("Failed to authorize with API"):
            self.check(headers, namespace, verb, "experiments")

    def check_pipeline(self, headers: dict[str, str], namespace: str, verb: str, pipeline: str = "") -> None:
        """As `check`, for pipelines; those without a namespace are shared."""
        if namespace:
            with during(f"Failed to access pipeline {pipeline}. Check if you have access to namespace {namespace}"):
                self.check(headers, namespace, verb, "pipelines")
