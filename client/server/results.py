"""What a run came to: its figures, and the files that it leaves for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_finetune.client.server.api import get_bytes
from kfp_finetune.client.server.calls import AwayError, NotFoundError, ask
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.logs import read_log
from kfp_finetune.client.server.runs import get_run
from kfp_finetune.client.server.tasks import read_steps
from kfp_finetune.errors import Problem, UserError, refuse
from kfp_finetune.results import FILES, Result, parse_result

METRICS_NAME = "metrics.json"
OURS = b'<meta name="generator" content="kfp-finetune">'
"""What every report has, and a login page has not."""


@dataclass(frozen=True)
class RunResults:
    """What a run came to.

    Args:
        run_id: The run.
        state: KFP's word for its state.
        results: Of its steps, in their order.
    """

    run_id: str
    state: str
    results: Sequence[Result]

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of all steps by name; of two of a name that of the later step."""
        return {name: figure for result in self.results for name, figure in result.figures.items()}

    @property
    def files(self) -> dict[str, str]:
        """Addresses of the files, by name."""
        return {name: address for result in self.results for name, address in result.files.items()}


def read_results(server: Server, run_id: str) -> RunResults:
    """Reads the results from the logs of a run's steps.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.

    Raises:
        UserError: If the run is not there, or the server hands out none of its logs.
    """
    run = get_run(server, run_id)
    steps = read_steps((run.run_details and run.run_details.task_details) or [])
    logs = [read_log(server, run, step) for step in steps]
    if steps and all(log is None for log in logs):
        raise refuse(
            "run",
            f"{run_id}, of whose steps the server has no logs",
            "a run whose pods are still there, or a server that archives logs",
            "See the run's page, or read the files on the volume: latest/NAME and trainings/KEY.",
        )
    results = [parse_result(line) for log in logs for line in log or []]
    return RunResults(run_id, str(run.state), [result for result in results if result is not None])


def fetch(server: Server, run_id: str, directory: Path) -> list[Path]:
    """Writes a run's metrics, report and manifest into a directory.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.
        directory: Where to write; made if it is not there.

    Returns:
        The files.

    Raises:
        UserError: If there is nothing to be had, or nothing but the metrics.
    """
    found = read_results(server, run_id)
    if not found.results:
        mend = "Wait for its training to end (kfp-finetune follow), or see its page for what failed."
        raise refuse("run", f"{run_id} ({found.state}), which has no results yet", "a run with results", mend)
    files = {METRICS_NAME: json.dumps({"run": run_id, "state": found.state, **found.metrics}, indent=2).encode()}
    problems: list[Problem] = []
    for name, address in found.files.items():
        try:
            files[name] = read_artifact(server, address)
        except UserError as error:
            problems += error.problems
    paths = _write(directory, files)
    if problems:
        mend = f"{problems[0].mend} Written are {', '.join(map(str, paths))}."
        missing = f"{problems[0].given}, nor {len(problems) - 1} more" if len(problems) > 1 else problems[0].given
        raise refuse(problems[0].what, missing, problems[0].allowed, mend)
    return paths


def _write(directory: Path, files: Mapping[str, bytes]) -> list[Path]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # of another run, perhaps
            (directory / name).unlink(missing_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
    except OSError as error:
        mend = "Name another with --to."
        raise refuse("--to", f"{directory} ({error.strerror})", "a directory to write to", mend) from error
    return [directory / name for name in files]


def read_artifact(server: Server, address: str) -> bytes:
    """The content of an artifact, which the UI hands out.

    Args:
        server: Kubeflow Pipelines.
        address: The artifact's, such as "minio://mlpipeline/v2/artifacts/...".

    Raises:
        UserError: If the server's address is that of the API alone, or the artifact is not there.
    """
    parts = urlsplit(address)
    query = {
        "source": "gcs" if parts.scheme == "gs" else parts.scheme,
        "bucket": parts.netloc,
        "key": parts.path.lstrip("/"),
        "namespace": server.namespace,
    }
    try:
        # Not again and again: the UI has a server error also for what is not there.
        content = ask("read an artifact", get_bytes, server.api, server.ui_host, "/artifacts/get", query, patience=0)
        if OURS in content or not content.lstrip().startswith(b"<"):  # else it is somebody's login page
            return content
        reason = "a login page came"
    except (NotFoundError, AwayError) as error:
        reason = error.problems[0].given
    raise refuse(
        "--ui-host",
        f"{server.ui_host}, which does not hand out {address} ({reason})",
        "the address of the UI, which serves artifacts beside the API",
        "Use it instead of the API's: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, and "
        "http://localhost:8080.",
    )
