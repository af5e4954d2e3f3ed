"""What a training on a cluster asks of the API server on 1, 16 and 256 nodes: real code in a played cluster."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from pathlib import Path

from benchmarks.measure import Figure
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.launch.trainjob.run import run_trainjob
from kfp_finetune.launch.trainjob.spec import JobSpec
from tests.servers.trainjobs import Play, Played, playing

NODES = (1, 16, 256)
SECONDS = 60
ENDS = {
    "that ends well": lambda nodes: (),
    "of which the last node fails": lambda nodes: (nodes - 1,),
    "of which all nodes fail": lambda nodes: tuple(range(nodes)),
}
"""The nodes that fail, by name."""


def measure(directory: Path) -> list[Figure]:
    """Runs trainings of a minute, all at once, each in a cluster of its own.

    Args:
        directory: Unused.
    """
    with redirect_stdout(io.StringIO()), ThreadPoolExecutor() as pool:
        running = {
            name: [pool.submit(_run, nodes, failing(nodes)) for nodes in NODES] for name, failing in ENDS.items()
        }
        return [figure for name, runs in running.items() for figure in _figures(name, [run.result() for run in runs])]


def _run(nodes: int, failing: tuple[int, ...]) -> Played:
    spec = JobSpec(
        "finetune-key", "torch-distributed", "ClusterTrainingRuntime", "image", ["python"], nodes, 1, "", "claim",
        "/workspace",
    )  # fmt: skip
    with playing(Play(SECONDS, 1.0, failing)) as (played, cluster), suppress(LaunchError):
        run_trainjob(cluster, spec, "run", lambda line: None)
    return played


def _figures(name: str, runs: list[Played]) -> list[Figure]:
    nodes = ", ".join(map(str, NODES))
    totals = [sum(played.counts.values()) for played in runs]
    largest = ", ".join(f"{count} {verb}" for verb, count in runs[-1].counts.most_common())
    return [
        Figure(
            f"requests of a training of {SECONDS} s {name}, {nodes} nodes", _listed(totals), "", f"the last: {largest}"
        ),
        Figure("... of objects that it creates", _listed([run.counts["create trainjobs"] for run in runs]), "", ""),
        Figure("... bytes of log that it reads", _listed([run.log_bytes for run in runs]), "", ""),
        Figure("... changes of pods that it is told", _listed([run.told for run in runs]), "", ""),
    ]


def _listed(values: list[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)
