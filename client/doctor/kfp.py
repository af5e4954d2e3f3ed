"""Whether Kubeflow Pipelines answers, and lets the user in."""

from kfp_finetune.client.doctor.report import Check, State
from kfp_finetune.client.server.calls import LoginError
from kfp_finetune.client.server.connection import Address, connect
from kfp_finetune.client.server.runs import runs_of
from kfp_finetune.errors import UserError

NAME = "Kubeflow Pipelines"


def check_kfp(address: Address) -> Check:
    """Checks whether Kubeflow Pipelines at an address shows its runs.

    Args:
        address: Where it is, and as whom it is asked.
    """
    try:
        server = connect(address)
        next(runs_of(server), None)
    except UserError as error:
        (problem, *_) = error.problems
        state = State.WARN if isinstance(error, LoginError) and not address.token_file else State.FAIL
        return Check(NAME, state, f"{address.host}: {problem.what}: {problem.given}", problem.mend)
    where = f", namespace {server.namespace}" if server.namespace else ""
    return Check(NAME, State.PASS, f"{server.host}{where}")
