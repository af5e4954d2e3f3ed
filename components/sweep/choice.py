"""Chooses the best trial of a sweep, and leaves what tells why."""

import json

from kfp_finetune.components.sweep.measured import drop_losers
from kfp_finetune.components.sweep.page import comparison_page
from kfp_finetune.components.sweep.results import Comparison, compare
from kfp_finetune.components.sweep.sweep import COMPARISON_NAME, Sweep, describe
from kfp_finetune.publishing import write_atomically
from kfp_finetune.workspace import REPORT_NAME, open_workspace


def choose_best(sweep: Sweep, workspace_root: str, keep_trials: bool = False) -> Comparison:
    """Chooses the best trial, writes how the trials compare, and removes the models of the others.

    Args:
        sweep: The sweep; its trials are over.
        workspace_root: Absolute path of the mounted volume.
        keep_trials: Whether to keep the other models.

    Raises:
        StepError: If no trial succeeded.
    """
    workspace = open_workspace(workspace_root)
    found = compare(workspace, sweep)
    folder = workspace.sweep(sweep.key)
    write_atomically(folder / REPORT_NAME, comparison_page(found))
    write_atomically(folder / COMPARISON_NAME, json.dumps(found.to_dict(), indent=2))
    best = found.best.trial
    print(f"best of {len(sweep.trials)} trials: {describe(best.values)}", flush=True)
    print(f"  {sweep.aim.metric} {found.figure(found.best):.4f}, training {best.plan.key}", flush=True)
    if not keep_trials:
        dropped = drop_losers(workspace, sweep, best)
        print(f"removed the models of {len(dropped)} other trials; their figures and reports stay", flush=True)
    return found
