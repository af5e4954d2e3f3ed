"""Small real models and datasets, made on the spot."""

import copy
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
FAMILIES: dict[str, dict[str, object]] = {
    "qwen2": {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
    "qwen3": {
        "tie_word_embeddings": True,
        "head_dim": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "llama": {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE},
    "mistral": {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}},
    "gemma": {"head_dim": 24},
    "gemma2": {
        "head_dim": 24,
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 8.0,
        "sliding_window": 24,
    },
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 250000.0}, "pad_token_id": 0},
}
"""What a family's config.json says beside the sizes, in a model of which every part matters."""
WORDS = ["red", "green", "blue", "small", "large", "round", "square", "stone", "river", "cloud"]


def write_tokenizer(directory: Path, chat_template: str | None = CHATML) -> None:
    """A byte-level tokenizer that knows any text, with ChatML's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"],
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = chat_template
    fast.save_pretrained(directory)


def write_model(directory: Path, family: str = "qwen2", seed: int = 0, **changes: object) -> Path:
    """A random model of a family, with weights large enough that every part of it matters."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **copy.deepcopy(SIZES | FAMILIES[family] | changes))
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
        else:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows whose answer follows from the prompt, so that a model can learn them."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(WORDS), (count, 3), generator=generator).tolist()
    return [
        {"input": " ".join(WORDS[i] for i in pick), "output": " ".join(WORDS[i] for i in reversed(pick))}
        for pick in picks
    ]


def write_rows(path: Path, count: int = 64, seed: int = 0) -> Path:
    """A jsonl file of such rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count, seed)))
    return path
