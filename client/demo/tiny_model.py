"""A tiny Qwen2.5-shaped base model, trained on the spot: it knows the language of the texts and no conversation.

What it writes is what a Hub repository of that architecture holds, so every later step treats it like a real model.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{Lu}?\p{Ll}+| ?\p{Lu}+(?!\p{Ll})| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Size of the model and of its training batches, in the terms of a Qwen2 configuration.

    Args:
        vocab_size: Entries of the tokenizer's vocabulary, special tokens included. Default: 3072.
        hidden_size: Width of the residual stream. Default: 192.
        layers: Decoder layers. Default: 4.
        heads: Attention heads. Default: 6.
        key_value_heads: Heads of keys and values. Default: 3.
        intermediate_size: Width inside the MLP. Default: 512.
        positions: Longest sequence in tokens. Default: 1024.
        row_tokens: Longest text in pretraining, in tokens; a longer one is cut. Default: 192.
        batch_tokens: Tokens in a pretraining batch, padding included. Default: 1024.
        learning_rate: Peak rate of both optimizers. Default: 0.01.
    """

    vocab_size: int = 3072
    hidden_size: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 3
    intermediate_size: int = 512
    positions: int = 1024
    row_tokens: int = 192
    batch_tokens: int = 1024
    learning_rate: float = 0.01


def reference_texts(train: Path) -> list[str]:
    """Turn the questions and answers of a data set into entries of a reference manual, for pretraining.

    An entry is the name that the question asks about and the text about it, without question or conversation.

    Args:
        train: A file as `write_dataset` writes it.

    Returns:
        One entry a row, in the file's order.
    """
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    subject = re.compile(r"What (?:does|is the module|is) (.+?)(?: do| for)?\?")
    return [subject.sub(r"\1", row["input"]) + "\n" + row["output"] for row in rows]


def write_base_model(
    directory: Path,
    texts: Sequence[str],
    steps: int = 220,
    seed: int = 7,
    shape: Shape = Shape(),
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Train a tokenizer and a base model on texts and write both as a Hub repository holds them.

    Args:
        directory: Where the files go; made if absent.
        texts: What to learn from; nothing else is seen.
        steps: Optimizer steps, at least 1. Default: 220.
        seed: Fixes the initial weights and the order of the texts. Default: 7.
        shape: Sizes of the model and its batches.
        on_step: Called after every step with the step (from 1), the number of steps and the loss in nats a token.

    Raises:
        ValueError: If there are no texts or no steps.
    """
    if not texts or steps < 1:
        raise ValueError(f"A base model needs texts and steps; there are {len(texts)} texts and {steps} steps.")
    tokenizer = train_tokenizer(texts, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _new_model(tokenizer, shape)
        _embed_by_spelling(model, tokenizer)
        _pretrain(model, _batches(tokenizer, texts, shape, seed), steps, shape.learning_rate, on_step)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    _name_tokenizer_class(directory / "tokenizer_config.json")
    model.save_pretrained(directory)


def train_tokenizer(texts: Sequence[str], shape: Shape = Shape()) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Qwen2.5's control tokens and chat format.

    Words are cut as Qwen2.5 cuts them, and names also at `_`, `.` and their humps, so that their parts become words.

    Args:
        texts: What to learn merges from.
        shape: Gives the size of the vocabulary and the longest sequence.

    Returns:
        The tokenizer; any text survives encoding and decoding up to Unicode normalization (NFC).
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocab_size,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=shape.positions,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _name_tokenizer_class(path: Path) -> None:
    """Name the class that every version of transformers knows; version 5 writes a name of its own."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _new_model(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        dtype="float32",
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def _batches(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], shape: Shape, seed: int) -> Iterator[_Batch]:
    """Yield batches without end, one text a row, texts of like length together, in a new order on every pass.

    Some texts are set as conversations of two turns that have nothing to do with each other: the model learns what the
    control tokens enclose, and not that an answer follows a question.
    """
    order = random.Random(seed)
    while True:
        rows = [ids[: shape.row_tokens] for ids in tokenizer(_rows_of(texts, order))["input_ids"]]
        rows.sort(key=lambda ids: (len(ids) + order.uniform(-4, 4), ids))
        batches: list[list[list[int]]] = [[]]
        for ids in rows:
            if (len(batches[-1]) + 1) * len(ids) > shape.batch_tokens and batches[-1]:
                batches.append([])
            batches[-1].append(ids)
        order.shuffle(batches)
        for batch in batches:
            yield _padded(batch, tokenizer.pad_token_id)


def _padded(rows: list[list[int]], padding: int) -> _Batch:
    width = max(map(len, rows))
    inputs = torch.tensor([ids + [padding] * (width - len(ids)) for ids in rows])
    labels = torch.tensor([ids + [-100] * (width - len(ids)) for ids in rows])
    return inputs, labels


def _embed_by_spelling(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Start tokens that are spelt alike from vectors that are alike (`codec`, ` codec`, `Codec`, `codecs`).

    A model that sees as little text as this one cannot find out by itself that they belong together, and needs it to
    say something about a name that it never saw.
    """
    weight = model.get_input_embeddings().weight
    pieces: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for token in range(len(tokenizer)):
            spelling = f"^{tokenizer.decode([token]).strip().lower()}$"
            if spelling.strip("^$").isalpha():
                starts = range(len(spelling) - 2)
                found = {spelling[start : start + length] for length in (3, 4, 5) for start in starts} | {spelling}
                for piece in sorted(found - pieces.keys()):
                    pieces[piece] = torch.randn(weight.shape[1])
                shared = torch.stack([pieces[piece] for piece in sorted(found)]).mean(0)
                shared = shared / shared.std() * weight.std()
                weight[token] = 0.8 * shared + 0.6 * weight[token]


def _rows_of(texts: Sequence[str], order: random.Random) -> list[str]:
    """Set a quarter of the texts as conversations of two that do not listen to each other, the rest as they are."""
    shuffled = list(texts)
    order.shuffle(shuffled)
    talking = len(shuffled) // 8 * 2
    pairs = zip(shuffled[:talking:2], shuffled[1:talking:2], strict=True)
    conversations = [
        f"{TURN_START}user\n{one}{TURN_END}\n{TURN_START}assistant\n{other}{TURN_END}\n" for one, other in pairs
    ]
    return conversations + [text + END_OF_TEXT for text in shuffled[talking:]]


def _pretrain(
    model: Qwen2ForCausalLM,
    batches: Iterator[_Batch],
    steps: int,
    learning_rate: float,
    on_step: Callable[[int, int, float], None] | None,
) -> None:
    """Train with Muon on the matrices inside the layers and AdamW on the rest; warm-up, then linear decay to zero."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in inside]
    optimizers: list[torch.optim.Optimizer] = [
        _Muon(matrices, lr=learning_rate),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    model.train()
    for step, (inputs, labels) in zip(range(1, steps + 1), batches, strict=False):
        rate = learning_rate * min(1.0, step / 10, 1.25 * (steps + 1 - step) / steps)
        loss = model(input_ids=inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        if on_step:
            on_step(step, steps, loss.item())
    model.eval()


class _Muon(torch.optim.Optimizer):
    """Muon in float32: torch's own computes in bfloat16, which takes ten times as long on a CPU without that type."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(tuple(p.shape), []).append(p)
            for shape, alike in by_shape.items():
                gradients = torch.stack([p.grad for p in alike if p.grad is not None])
                momenta = self.state[alike[0]].setdefault("momenta", torch.zeros_like(gradients))
                momenta.lerp_(gradients, 1 - group["momentum"])
                updates = _orthogonal(gradients.lerp(momenta, group["momentum"]))
                for p, update in zip(alike, updates, strict=True):
                    p.sub_(update, alpha=group["lr"] * 0.2 * max(shape) ** 0.5)


def _orthogonal(matrices: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """Approximate the nearest orthogonal matrix of each by Newton-Schulz iterations."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(3.4445 * x, torch.baddbmm(-4.775 * gram, gram, gram, alpha=2.0315), x)
    return x.mT if is_tall else x
