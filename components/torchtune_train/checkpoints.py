"""Checkpoints that are whole or absent, and where a training goes on from."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torchtune.training import FullModelHFCheckpointer, ModelType

from kfp_finetune.components.torchtune_train.epochs import ADAPTER_FOLDER, RECIPE_STATE_NAME, whole_epochs
from kfp_finetune.workspace import MANIFEST_NAME, publishing


class EpochCheckpointer(FullModelHFCheckpointer):
    """torchtune's checkpointer, with each epoch appearing by one rename.

    An epoch's directory holds a model that transformers loads, the adapter (LoRA) in a folder of its own, where no
    loader applies it a second time, and, but for the last epoch, the state that training goes on from.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._output_dir: Path
        self._config.setdefault("tie_word_embeddings", False)
        self._config.setdefault("num_key_value_heads", self._config["num_attention_heads"])

    def save_checkpoint(
        self,
        state_dict: dict[str, Any],
        epoch: int,
        intermediate_checkpoint: bool = False,
        adapter_only: bool = False,
    ) -> None:
        """Saves an epoch; see `FullModelHFCheckpointer.save_checkpoint`."""
        training: Path = self._output_dir
        with publishing(training / f"epoch_{epoch}") as staging:
            self._output_dir = staging
            try:
                super().save_checkpoint(state_dict, epoch, intermediate_checkpoint, adapter_only)
            finally:
                self._output_dir = training
            _tidy(staging, epoch)
            if self._model_type == ModelType.QWEN2:
                _unpermute_adapter(staging / ADAPTER_FOLDER / "adapter_model.safetensors", self._config)


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


def _unpermute_adapter(path: Path, config: dict[str, Any]) -> None:
    """Puts the rows of the adapter's query and key matrices back in the order of Qwen 2's weights.

    torchtune 0.6.1 orders them for interleaved rotary embeddings in every family's adapter
    (`torchtune.models.convert_weights.tune_to_peft_adapter_weights`), but Qwen 2's weights never are in that order.
    """
    if not path.exists():
        return
    tensors = load_file(path)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in tensors.items():
        count = next((count for module, count in heads.items() if f".{module}.lora_B" in name), None)
        if count is not None:
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
