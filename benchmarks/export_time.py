"""Exporting a model against copying its bytes, and how much memory it takes."""

import multiprocessing
import os
import shutil
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.measure import Figure, Run, in_turns, ratios, run, seconds_of
from kfp_finetune.components.initialize_model.model import initialize_model
from kfp_finetune.training.plan import Plan
from kfp_finetune.workspace import Workspace

SHARD = "1GB"
ROUNDS = 5
START = """
import sys
from transformers import LlamaForCausalLM
from kfp_finetune.components.export_model.export import export
from kfp_finetune.training.plan import Plan
"""
EXPORT = START + 'export(Plan.from_json(open(sys.argv[1]).read()), "bench", sys.argv[2])'


def measure(directory: Path) -> list[Figure]:
    """Exports a random bf16 model of about 4 GB in shards of 1 GB, and copies the same files.

    Args:
        directory: Where to work; a few times the model's size is needed.
    """
    workspace = Workspace(directory / "workspace")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        plan = pool.submit(_training, directory, workspace).result()
    (directory / "plan.json").write_text(plan.to_json())
    epoch = workspace.root / plan.training / "epoch_0"
    size = sum(path.stat().st_size for path in epoch.glob("*.safetensors"))
    shard = max(path.stat().st_size for path in epoch.glob("*.safetensors"))

    def export(number: int) -> Run:
        shutil.rmtree(workspace.root / "exports", ignore_errors=True)
        os.sync()
        command = [sys.executable, "-c", EXPORT, str(directory / "plan.json"), str(workspace.root)]
        return run(command, directory / "export.log")

    def start(number: int) -> Run:
        return run([sys.executable, "-c", START], directory / "start.log")

    def copy(number: int) -> Run:
        shutil.rmtree(directory / "copy", ignore_errors=True)
        os.sync()
        return run(["cp", "-r", str(epoch), str(directory / "copy")], directory / "copy.log")

    exports, starts, copies = in_turns(ROUNDS, export, start, copy)
    work = [one.seconds - idle.seconds for one, idle in zip(exports, starts, strict=True)]
    ratio, spread = ratios(work, seconds_of(copies))
    peak = max(one.peak_bytes for one in exports)
    begin = statistics.median(seconds_of(starts))
    return [
        Figure(
            f"export / cp -r, {size / 1e9:.1f} GB, start of transformers left out", f"{ratio:.2f}", "<= 1.2", spread
        ),
        Figure("... start of transformers", f"{begin:.1f} s", "", ""),
        Figure(f"... peak memory, largest shard {shard / 1e9:.1f} GB", f"{peak / 1e9:.1f} GB", "<= shard + 0.5 GB", ""),
    ]


def _training(directory: Path, workspace: Workspace) -> Plan:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests import tiny

    torch.manual_seed(0)
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 16}
    config = LlamaConfig(**shape, vocab_size=32000, num_key_value_heads=8, dtype="bfloat16")
    base = directory / "base"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base, max_shard_size=SHARD)
    tiny.write_tokenizer(base)
    manifest = initialize_model(str(base), str(workspace.root))
    training = workspace.training("bench")
    shutil.copytree(base, training / "epoch_0")
    empty = {"rows": 0}
    return Plan(
        key="bench",
        training=workspace.relative(training),
        model=manifest.path,
        base=manifest.source,
        dataset="none",
        method="full",
        epochs=1,
        num_procs_per_node=1,
        num_nodes=1,
        dtype="bf16",
        total_steps=0,
        lora_scale=0.0,
        export_checkpoint="last",
        has_chat_template=True,
        train=empty,
        held_out=empty,
    )
