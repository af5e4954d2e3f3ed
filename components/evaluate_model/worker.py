"""One of several processes that measure a model: python -m ...worker WORK.json MEASURED.json, run by torchrun."""

import json
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch

from kfp_finetune.components.evaluate_model.loss import Share
from kfp_finetune.components.evaluate_model.measure import Work, measure_share
from kfp_finetune.launch.process import die_with_parent, end_process

LONGEST_WAIT = timedelta(days=7)
"""Of a process for the others: answers that are generated take some of them much longer than others."""


def main(wanted: Path, found: Path) -> None:
    """Takes part; the first process writes what they found together.

    Args:
        wanted: A file with the `Work`.
        found: The file to write `Measured` to.
    """
    on_gpu = torch.cuda.is_available()
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT)
    share = Share(torch.distributed.get_rank(), torch.distributed.get_world_size())
    if on_gpu:
        torch.cuda.set_device(share.rank)
    measured = measure_share(Work(**json.loads(wanted.read_text())), share)
    if share.rank == 0:
        found.write_text(json.dumps(asdict(measured)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    die_with_parent()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    end_process()
