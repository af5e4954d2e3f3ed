"""The whole pipeline against nothing but its training, run by hand."""

import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.measure import Figure, Run, in_turns, ratios, run, seconds_of, start_over
from kfp_finetune.client.demo.__main__ import PIPELINE, choose_dataset, choose_model
from kfp_finetune.training.plan import PLAN_NAME, Plan

ROUNDS = 2


def measure(directory: Path) -> list[Figure]:
    """Runs the demo's pipeline and then the training that it planned, with torchrun alone.

    Args:
        directory: Where to work.
    """
    settings = [*choose_model("", directory), *choose_dataset("", directory)]
    workspace = directory / "workspace"
    command = [str(Path(sys.executable).parent / "kfp-finetune"), "local", str(PIPELINE), "--workspace", str(workspace)]
    command += [part for setting in settings for part in ("--set", setting)]

    def pipeline(number: int) -> Run:
        shutil.rmtree(workspace, ignore_errors=True)
        return run(command, directory / "pipeline.log")

    def training(number: int) -> Run:
        folder = next(path.parent for path in workspace.glob(f"trainings/*/{PLAN_NAME}"))
        plan = Plan.from_json((folder / PLAN_NAME).read_text())
        start_over(folder)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--nproc-per-node", str(plan.num_procs_per_node)]
        torchrun += ["-m", "kfp_finetune.components.torchtune_train.worker"]
        torchrun += ["--method", plan.method, "--config", str(folder / "config.yaml")]
        return run(["env", "OMP_NUM_THREADS=1", *torchrun], directory / "torchrun.log")

    pipelines, trainings = in_turns(ROUNDS, pipeline, training)
    ratio, spread = ratios(seconds_of(pipelines), seconds_of(trainings))
    more = [one.seconds - other.seconds for one, other in zip(pipelines, trainings, strict=True)]
    spread_more = f"{min(more):.0f} to {max(more):.0f} s"
    overhead = statistics.median(more)
    length = statistics.median(seconds_of(trainings))
    return [
        Figure(f"pipeline / bare torchrun, a training of {length:.0f} s", f"{ratio:.2f}", "<= 1.05, or ...", spread),
        Figure("... pipeline - bare torchrun", f"{overhead:.0f} s", "<= 10 s", spread_more),
        Figure("... trainings from this length on are within 1.05", f"{overhead / 0.05 / 60:.0f} min", "", ""),
    ]
