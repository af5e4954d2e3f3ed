"""The whole parameter set of a training: values that may be right, and values that never are."""

import random
from typing import Any

CHOICES: dict[str, list[Any]] = {
    "method": ["full", "lora", "dora", "qlora", "qdora"],
    "epochs": [1, 2],
    "learning_rate": [0.0, 1e-3, 0, 1],
    "batch_size": [0, 1, 2, 3],
    "gradient_accumulation_steps": [1, 2],
    "max_seq_len": [0, 64, 128, 100_000],
    "packed": [False, True],
    "dtype": ["fp32", "bf16"],
    "lora_rank": [1, 8, 64],
    "num_procs_per_node": [1],
    "dataset_type": ["auto", "instruct"],
    "column_map": [{}, {"input": "output", "output": "input"}],
    "train_on_input": [False, True],
    "new_system_prompt": ["", "Be short."],
    "split": ["train", "train[:80%]"],
    "held_out": ["5%", "20%", "train[90%:]"],
}
"""Values of the parameters."""

ADVANCED: dict[str, list[Any]] = {
    "lora_alpha": [0, 1.0, 64],
    "lora_dropout": [0, 0.1],
    "lora_attn_modules": [["q_proj"], ["v_proj", "output_proj"], ["q_proj", "k_proj", "v_proj", "output_proj"]],
    "apply_lora_to_mlp": [True, False],
    "apply_lora_to_output": [False, True],
    "optimizer": ["adamw", "adamw_8bit"],
    "weight_decay": [0, 0.01, 0.5],
    "lr_scheduler": ["cosine", "linear", "constant"],
    "warmup_ratio": [0, 0.03, 1],
    "clip_grad_norm": [0, 1.0, 1e-3],
    "max_steps_per_epoch": [1, 2],
    "seed": [0, 42, 2**31 - 1],
    "enable_activation_checkpointing": [False, True, None],
    "enable_activation_offloading": [False, True],
    "fsdp_cpu_offload": [False, True],
    "num_output_chunks": [1, 3, 8],
    "tensor_parallel_dim": [1],
    "quantization_aware": ["", "int4", "int8"],
    "keep_last_n_checkpoints": [0, 1],
    "export_checkpoint": ["last", "best"],
    "metric_loggers": [{}, {"tensorboard": {}}],
}
"""Values of the settings in `advanced`."""

OVERRIDES: dict[str, list[Any]] = {
    "optimizer.betas": [[0.8, 0.9]],
    "optimizer.eps": [1e-6],
    "optimizer._component_": [
        "torch.optim.Adam", "torch.optim.SGD", "torch.optim.NAdam", "torch.optim.RAdam", "torch.optim.RMSprop",
        "torchao.optim.Adam8bit",
    ],
    "loss._component_": ["torch.nn.CrossEntropyLoss"],
    "lr_scheduler.num_cycles": [0.4],
    "shuffle": [True, False],
    "log_peak_memory_stats": [False],
    "cudnn_deterministic_mode": ["default", "warn"],
    "fsdp_reshard_after_forward": [True, False],
    "custom_sharded_layers": [["tok_embeddings"]],
    "optimizer_in_bwd": [True, False],
}  # fmt: skip
"""Values of the overrides."""


def draw(chance: random.Random) -> dict[str, Any]:
    """One choice of everything: each parameter is set or left to its default."""

    def some(table: dict[str, list[Any]], share: float) -> dict[str, Any]:
        return {name: chance.choice(values) for name, values in table.items() if chance.random() < share}

    return {**some(CHOICES, 0.4), "advanced": some(ADVANCED, 0.25), "overrides": some(OVERRIDES, 0.12)}
