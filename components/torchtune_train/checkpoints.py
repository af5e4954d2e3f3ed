"""Checkpoints that are whole or absent, and where a training goes on from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchtune.models.qwen2 import _convert_weights as qwen2_names
from torchtune.training import MODEL_KEY, FullModelHFCheckpointer, ModelType

from kfp_finetune.components.torchtune_train.families import complete, keeps_pairs, rotary_heads
from kfp_finetune.components.torchtune_train.qwen3 import NORMS
from kfp_finetune.manifests import MANIFEST_NAME
from kfp_finetune.publishing import publishing
from kfp_finetune.training.epochs import (
    ADAPTER_FOLDER,
    RECIPE_STATE_NAME,
    drop_surplus,
    whole_epochs,
)
from kfp_finetune.training.steps import drop_steps


class EpochCheckpointer(FullModelHFCheckpointer):
    """torchtune's checkpointer, with each epoch appearing by one rename.

    An epoch's directory holds a model that transformers loads, the adapter (LoRA) in a folder of its own, where no
    loader applies it a second time, and, but for the last epoch, the state that training goes on from. There is no
    adapter in peft's form of a Phi: torchtune cannot write one, as transformers fuses the matrices that it adapts.

    Args:
        args: Of `FullModelHFCheckpointer`.
        keep_last_n: Epochs to keep; 0 for all.
        kwargs: Of `FullModelHFCheckpointer`.
    """

    def __init__(self, *args: Any, keep_last_n: int = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._keep_last_n = keep_last_n
        self._output_dir: Path
        self._config: dict[str, Any] = complete(self._config)
        if self._config["model_type"] == "qwen3":
            qwen2_names._FROM_HF.update(NORMS)

    def load_checkpoint(self) -> dict[str, Any]:
        """Loads the model; see `FullModelHFCheckpointer.load_checkpoint`.

        Raises:
            ValueError: If config.json says that output and input embeddings are one matrix, and the files hold two.
        """
        tied = self._config["tie_word_embeddings"]
        if tied:
            _check_tied(self._checkpoint_paths)
        loaded = super().load_checkpoint()
        model: dict[str, torch.Tensor] = loaded[MODEL_KEY]
        if tied:
            model.pop("output.weight", None)
        # Parts of Phi's fused matrices are views of these, and four bits can only be made of a whole tensor.
        whole = {name: tensor.clone() if tensor.storage_offset() else tensor for name, tensor in model.items()}
        loaded[MODEL_KEY] = self._put_norms_right(whole)
        self._weight_map: dict[str, str] = {
            name: shard for name, shard in self._weight_map.items() if self._is_saved(name)
        }
        return loaded

    def _is_saved(self, name: str) -> bool:
        """Whether a tensor of the files is written again: not so a tied output layer, nor Llama 2's frequencies."""
        tied = name == "lm_head.weight" and self._config["tie_word_embeddings"]
        return not tied and not name.endswith("rotary_emb.inv_freq")

    def _put_norms_right(self, model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Swaps the norms before and after the MLP in Gemma 2's weights, which torchtune 0.6.1 confuses both ways.

        `torchtune.models.gemma2._convert_weights` reads post_feedforward_layernorm as the norm before the MLP, and
        pre_feedforward_layernorm as the one after it.
        """
        if self._model_type != ModelType.GEMMA2:
            return model
        other = {"mlp_norm": "mlp_scale", "mlp_scale": "mlp_norm"}
        return {".".join(other.get(part, part) for part in name.split(".")): model[name] for name in model}

    def save_checkpoint(
        self,
        state_dict: dict[str, Any],
        epoch: int,
        intermediate_checkpoint: bool = False,
        adapter_only: bool = False,
    ) -> None:
        """Saves an epoch; see `FullModelHFCheckpointer.save_checkpoint`."""
        training: Path = self._output_dir
        if MODEL_KEY in state_dict:
            state_dict[MODEL_KEY] = self._put_norms_right(state_dict[MODEL_KEY])
        with publishing(training / f"epoch_{epoch}") as staging:
            self._output_dir = staging
            try:
                super().save_checkpoint(state_dict, epoch, intermediate_checkpoint, adapter_only)
            finally:
                self._output_dir = training
            _tidy(staging, epoch)
            _order_adapter(staging / ADAPTER_FOLDER / "adapter_model.safetensors", self._config)
        drop_surplus(training, self._keep_last_n)
        drop_steps(training)


def _check_tied(files: Sequence[Path]) -> None:
    """Transformers gives a model whose files hold two different matrices both of them, whatever config.json says."""
    found: dict[str, torch.Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            names = {"lm_head.weight", "model.embed_tokens.weight"}.intersection(file.keys())
            found |= {name: file.get_tensor(name) for name in names}
    if len(found) == 2 and not torch.equal(*found.values()):
        raise ValueError("tie_word_embeddings in config.json, and yet lm_head is not embed_tokens in the weights")


def _tidy(staging: Path, epoch: int) -> None:
    written = staging / f"epoch_{epoch}"
    (written / MANIFEST_NAME).unlink(missing_ok=True)
    for path in written.iterdir():
        folder = staging / ADAPTER_FOLDER if path.name.startswith("adapter_") else staging
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    written.rmdir()
    state = staging / "recipe_state" / RECIPE_STATE_NAME
    if state.exists():
        state.rename(staging / RECIPE_STATE_NAME)
        state.parent.rmdir()


def _order_adapter(path: Path, config: dict[str, Any]) -> None:
    """Puts the rows of the adapter's query and key matrices in the order of the family's weights.

    torchtune keeps these rows in pairs for its interleaved rotary embeddings, and orders them back when it writes an
    adapter (`torchtune.models.convert_weights.tune_to_peft_adapter_weights`), but 0.6.1 forgets DoRA's magnitudes, and
    does it for Qwen 2 as well, whose weights never are in pairs.

    Args:
        path: The adapter's file; it may be absent.
        config: The model's whole config.json.
    """
    if not path.exists():
        return
    tensors = load_file(path)
    for name, tensor in tensors.items():
        count = rotary_heads(name, config)
        if count is None:
            continue
        if keeps_pairs(config) and name.endswith("lora_magnitude_vector"):
            tensors[name] = tensor.view(count, -1, 2).transpose(1, 2).reshape(-1).contiguous()
        elif not keeps_pairs(config) and ".lora_B." in name:
            rank = tensor.shape[-1]
            tensors[name] = tensor.view(count, 2, -1, rank).transpose(1, 2).reshape(-1, rank).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def resume_settings(training: Path) -> dict[str, Any]:
    """What to change in a configuration so that training goes on from the newest epoch that has a state.

    Args:
        training: The training's directory.

    Returns:
        Changes to merge over the configuration; empty where there is nothing to go on from.
    """
    for epoch in reversed(whole_epochs(training).values()):
        if not (epoch / RECIPE_STATE_NAME).exists():
            continue
        checkpointer: dict[str, Any] = {"recipe_checkpoint": str(epoch / RECIPE_STATE_NAME)}
        adapter = epoch / ADAPTER_FOLDER / "adapter_model.pt"
        if adapter.exists():
            checkpointer["adapter_checkpoint"] = str(adapter)
        else:
            checkpointer["checkpoint_files"] = sorted(
                f"{epoch.name}/{path.name}" for path in epoch.glob("*.safetensors")
            )
        return {"resume_from_checkpoint": True, "checkpointer": checkpointer}
    return {}
