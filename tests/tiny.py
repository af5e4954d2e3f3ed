"""Small real models and datasets, made on the spot."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

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
    config, build = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }[family]
    sizes: dict[str, object] = {**SIZES, "tie_word_embeddings": True, **changes}
    if family == "llama":
        sizes.setdefault(
            "rope_parameters",
            {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        )
    model = build(config(**sizes))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
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
