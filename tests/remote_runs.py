"""What runs on a server of Kubeflow Pipelines are given in tests."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from servers import kfp
from servers.kfp import faults

from kfp_finetune.progress import Progress
from kfp_finetune.reports.page import Facts, page
from kfp_finetune.results import Result

PIPELINE = Path(__file__).parents[1] / "pipelines" / "torchtune_finetune" / "pipeline.yaml"
GIVEN = {"model": "hf://org/model", "dataset": "hf://org/rows"}
KEY = "v2/artifacts/torchtune-finetune/1/evaluate-model/2/report"
REPORT = page("A report", "", [Facts("Run", [("Losses", "fell")])]).encode()


def acts(*moves: Callable[[], object]) -> faults.Fault:
    """A fault that is none: before each request that meets it, the next move is made; then it is answered as always."""
    left = list(moves)

    def act(handler: BaseHTTPRequestHandler, handle: Callable[[], faults.Reply]) -> None:
        if left:
            left.pop(0)()
        handle().send(handler)

    return act


def whole_run(remote: kfp.Server) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two moves of the newest run: it trains; it ends well with a report."""

    def train() -> None:
        run = list(remote.store.runs.values())[-1]
        run.skip("condition-4")  # the training as a TrainJob
        run.start("torchtune-train")
        run.log("torchtune-train", Progress("train", 5, 10, "step", 3.0, {"loss": 1.5}).to_line(), "a line")

    def end() -> None:
        run = list(remote.store.runs.values())[-1]
        run.finish("torchtune-train")
        run.start("evaluate-model")
        evaluated = Result(
            "evaluate", {"loss_before": 2.5, "loss_after": 1.25}, {"report.html": f"minio://mlpipeline/{KEY}"}
        )
        run.log("evaluate-model", evaluated.to_line())
        remote.artifacts[KEY] = REPORT
        for step in "evaluate-model", "export-model", "clean-up":
            run.finish(step)
        run.end()

    return train, end
