"""One training as the Kubeflow SDK's BuiltinTrainer runs it by default, on a small model and on this machine.

The runtime torchtune-qwen2.5-1.5b of Kubeflow Trainer 2.3 (manifests/base/runtimes/torchtune/qwen2_5) calls

    tune run full_finetune_distributed --config qwen2_5/1.5B_full
      dataset=torchtune.datasets.instruct_dataset dataset.source=parquet dataset.data_dir=/workspace/dataset/data
      output_dir=/workspace/output tokenizer.path=/workspace/model/vocab.json
      tokenizer.merges_file=/workspace/model/merges.txt checkpointer.checkpoint_dir=/workspace/model

and so does this, but for what a small model and a machine without a GPU need: the sizes, the ids of the special tokens,
and the device.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torchtune
from omegaconf import DictConfig, OmegaConf

from kfp_finetune.components.torchtune_train.cpu import support_cpu
from kfp_finetune.components.torchtune_train.models import read_architecture
from kfp_finetune.components.torchtune_train.recipes import FULL, load_recipe

CONFIG = "qwen2_5/1.5B_full"


def default_config(model: Path, data: Path, output: Path) -> DictConfig:
    """The configuration that torchtune ships, with the runtime's arguments and what this machine needs.

    Args:
        model: Directory of the model.
        data: Directory of parquet files.
        output: Directory to write.
    """
    path = Path(torchtune.__file__).parent.parent / "recipes" / "configs" / f"{CONFIG}.yaml"
    architecture = read_architecture(json.loads((model / "config.json").read_text()))
    arguments: dict[str, Any] = {
        "dataset": {
            "_component_": "torchtune.datasets.instruct_dataset",
            "packed": False,
            "source": "parquet",
            "data_dir": str(data),
        },
        "output_dir": str(output),
        "tokenizer": {"path": str(model / "vocab.json"), "merges_file": str(model / "merges.txt")},
        "checkpointer": {"checkpoint_dir": str(model)},
    }
    needed = {
        "tokenizer": {"special_tokens_path": str(model / "special_tokens.json")},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    config = OmegaConf.merge(OmegaConf.load(path), arguments, needed)
    config.model = {
        "_component_": architecture.builder,
        "max_seq_len": architecture.max_seq_len,
        **architecture.arguments,
    }
    return config


def main() -> None:
    """Trains, and writes tokens (padding left out) and seconds of the training loop into `result.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        support_cpu()
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    config = default_config(given.model, given.data, given.output)
    recipe = getattr(load_recipe(FULL[0]), FULL[1])(config)
    recipe.setup(cfg=config)
    tokens, collate = 0, recipe._dataloader.collate_fn

    def counted(rows: list[dict[str, Any]]) -> Any:
        nonlocal tokens
        tokens += sum(len(row["tokens"]) for row in rows)
        return collate(rows)

    recipe._dataloader.collate_fn = counted
    began = time.monotonic()
    recipe.train()
    seconds = time.monotonic() - began
    recipe.cleanup()
    (given.output / "result.json").write_text(json.dumps({"tokens": tokens, "seconds": seconds}))


if __name__ == "__main__":
    main()
