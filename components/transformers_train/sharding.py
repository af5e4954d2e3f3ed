"""FSDP: weights, gradients and optimizer shared out among the processes.

Found and mended in accelerate 1.15 and torch 2.13, each with a test: on a CPU accelerate silently runs DDP; a layer
around the input embedding would share that out twice; two names of one bias end in units of their own; and a weight
with two names is gathered, and written, as two.
"""

from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from transformers import PreTrainedModel, Trainer


def fsdp_arguments(model: PreTrainedModel) -> dict[str, Any]:
    """The TrainingArguments with which a model is shared out, layer by layer.

    Args:
        model: To be trained; of an adapted one, the model inside.
    """
    layers = layers_to_shard(model)
    wrap = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": layers}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "state_dict_type": "FULL_STATE_DICT",
            **(wrap if layers else {"auto_wrap_policy": "NO_WRAP"}),
        },
    }


def layers_to_shard(model: PreTrainedModel) -> list[str]:
    """The classes of a model's layers that it says not to split, less those that hold the input embedding.

    accelerate shares that embedding out by itself.
    """
    embedding = model.get_input_embeddings()
    held: dict[str, set[nn.Module]] = {}
    for module in model.modules():
        held.setdefault(type(module).__name__, set()).update(module.modules())
    return [name for name in model._no_split_modules or [] if name in held and embedding not in held[name]]


def drop_aliases(model: PreTrainedModel) -> None:
    """Leaves the output layer's bias its own name alone.

    A masked language model has it a second time beside that layer, where no forward pass reads it. Models that are
    loaded have both again.
    """
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    if bias is None:
        return
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is bias and module is not head:
                module.register_parameter(name, None)


class ShardingTrainer(Trainer):
    """A Trainer that shares a model out among processes on CPUs too.

    accelerate looks for FSDP only where processes have GPUs of some kind, and then says itself that it is FSDP that
    runs; on GPUs nothing is different here.
    """

    def create_accelerator_and_postprocess(self) -> None:
        """Makes the accelerator; see `Trainer`."""
        state = self.args.distributed_state
        if self.args.fsdp and state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Writes a weight with two names once: gathered, it is two tensors."""
        if state_dict:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            tied = getattr(model, "all_tied_weights_keys", {})
            state_dict = {name: value for name, value in state_dict.items() if tied.get(name) not in state_dict}
        super()._save(output_dir, state_dict)
