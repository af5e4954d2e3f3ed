"""What is trained beside a model is the model's own once it is merged, and what does not fit is refused before."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from kfp_finetune.components.transformers_train.lora import (
    ADAPTER_WEIGHTS,
    DECIDED,
    LORA_VALUES,
    TASK_TYPES,
    add_adapter,
    check_lora,
    load_peft,
    merge,
)
from kfp_finetune.components.transformers_train.lora_modules import heads
from kfp_finetune.components.transformers_train.tasks.table import TASKS
from kfp_finetune.errors import StepError

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT = transformers.BertConfig(**SIZES, vocab_size=60)
LLAMA = transformers.LlamaConfig(**SIZES, vocab_size=60)
QWEN_3 = transformers.Qwen3Config(**SIZES, vocab_size=60, num_key_value_heads=2, head_dim=16)
VIT = transformers.ViTConfig(**SIZES, image_size=16, patch_size=8)
CLIP = transformers.CLIPConfig(vision_config=dict(SIZES, image_size=16, patch_size=8))
RESNET = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
DEBERTA = transformers.DebertaV2Config(**SIZES, vocab_size=60)
T5 = transformers.T5Config(
    d_model=32, d_ff=64, num_layers=1, num_heads=4, d_kv=8, vocab_size=60, decoder_start_token_id=0
)
IMAGES, TEXTS = "AutoModelForImageClassification", "AutoModelForSequenceClassification"
DORA = {"r": 4, "use_dora": True, "target_modules": "all-linear"}


def _batch(name: str, in_segments: bool = False) -> dict[str, torch.Tensor]:
    if name == IMAGES:
        return {"pixel_values": torch.randn(4, 3, 16, 16), "labels": torch.tensor([0, 1, 0, 1])}
    ids = torch.randint(3, 60, (4, 12))
    labels: dict[str, dict[str, torch.Tensor]] = {
        TEXTS: {"labels": torch.tensor([0, 1, 0, 1])},
        "AutoModelForTokenClassification": {"labels": ids % 2},
        "AutoModelForQuestionAnswering": {"start_positions": torch.arange(4), "end_positions": torch.arange(4) + 1},
    }
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | labels.get(name, {"labels": ids})
    return batch | ({"token_type_ids": (torch.arange(12) > 5).long().repeat(4, 1)} if in_segments else {})


def _scores(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([value.flatten() for name, value in model(**batch).items() if "logits" in name])


@pytest.mark.parametrize(
    ("name", "config", "given"),
    [
        (TEXTS, BERT, {"r": 4}),
        ("AutoModelForTokenClassification", BERT, {"r": 4}),
        ("AutoModelForQuestionAnswering", BERT, {"r": 4}),
        ("AutoModelForMaskedLM", BERT, {"r": 4}),
        ("AutoModelForCausalLM", LLAMA, {"r": 4}),
        ("AutoModelForCausalLM", QWEN_3, {"r": 4}),
        (IMAGES, VIT, {"r": 4}),
        (IMAGES, CLIP, {"r": 4}),  # whose model is not built around a base model
        (IMAGES, RESNET, {"r": 4}),  # convolutions, and norms with running figures
        (TEXTS, DEBERTA, {"r": 4}),  # whose pooler is new too
        ("AutoModelForQuestionAnswering", T5, {"r": 4}),
        (TEXTS, BERT, DORA),
        ("AutoModelForCausalLM", LLAMA, DORA),
        (IMAGES, VIT, DORA),
        (TEXTS, BERT, {"r": 4, "bias": "all", "use_rslora": True, "rank_pattern": {"value": 2}, "lora_dropout": 0.1}),
        (TEXTS, BERT, {"init_lora_weights": "orthogonal", "modules_to_save": ["bert.pooler"]}),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_merged_model_scores_as_the_trained_one(tmp_path: Path, name, config, given):
    assert check_lora(given, name, config) == []
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    kind.from_config(config).save_pretrained(tmp_path / "base")
    bare = getattr(transformers, name).from_pretrained(tmp_path / "base")
    trained = add_adapter(kind.from_pretrained(tmp_path / "base"), given, name)
    optimizer = torch.optim.AdamW([weight for weight in trained.parameters() if weight.requires_grad], lr=1e-2)
    batch = _batch(name, in_segments=config is BERT)
    trained.train()
    for _ in range(2):
        trained(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained.save_pretrained(tmp_path / "adapter")
    wanted, before = _scores(trained, batch), _scores(bare, batch)

    for head in [] if name.endswith("LM") else heads(bare):
        for weight in bare.get_submodule(head).parameters():
            torch.nn.init.normal_(weight)  # a head that a model gets anew whenever it is loaded
    merged = merge(bare, tmp_path / "adapter")

    assert type(merged) is type(kind.from_config(config))
    assert merged.state_dict().keys() == kind.from_config(config).state_dict().keys()
    assert torch.allclose(_scores(merged, batch), wanted, atol=1e-5)
    assert (wanted - before).abs().max() > 1e-3


def test_only_the_adapter_and_a_new_head_are_trained():
    trained = {
        name: {
            weight
            for weight, values in add_adapter(
                getattr(transformers, name).from_config(config), {"r": 4}, name
            ).named_parameters()
            if values.requires_grad and ".lora_" not in weight
        }
        for name, config in ((TEXTS, BERT), (IMAGES, VIT), ("AutoModelForCausalLM", LLAMA))
    }
    head = {f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")}
    assert trained == {TEXTS: head, IMAGES: head, "AutoModelForCausalLM": set()}


@pytest.mark.parametrize(
    ("given", "what", "words"),
    [
        ({"target_modules": ["query", "valu"]}, "target_modules", ["'valu'", "query, key, value, dense"]),
        ({"target_modules": "query"}, "target_modules", ["regular expression"]),
        ({"target_modules": "("}, "target_modules", ["unterminated"]),
        ({"target_modules": ["LayerNorm"]}, "", ["not supported", "query, key, value, dense"]),
        ({"target_modules": ["classifier"]}, "", ["No modules were targeted"]),
        ({"modules_to_save": ["poler"]}, "modules_to_save", ["'poler'"]),
        ({"rank_pattern": {"nope": 4}}, "rank_pattern", ["'nope'"]),
        ({"layers_to_transform": [7], "target_modules": ["query"]}, "", ["No modules were targeted"]),
        ({"r": 3, "init_lora_weights": "orthogonal"}, "", ["rank to be even"]),
        ({"use_dora": True, "lora_bias": True}, "", ["DoRA"]),
        ({"r": True}, "r", ["from 1"]),
        ({"lora_dropout": 1}, "lora_dropout", ["below 1"]),
        ({"init_lora_weights": "eva"}, "init_lora_weights", ["gaussian"]),
        ({"task_type": "SEQ_CLS"}, "task_type", ["transformer_type"]),
        ({"tagret_modules": ["query"]}, "", ["Did you mean target_modules?"]),
        ([], "", ["an object"]),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, given, what, words):
    BERT.save_pretrained(tmp_path)
    (problem,) = check_lora(given, TEXTS, tmp_path)
    assert problem.what == (f"lora_config.{what}" if what else "lora_config")
    assert all(word in str(problem) for word in words)


@pytest.mark.parametrize(
    ("name", "config", "given"),
    [
        ("AutoModelForCausalLM", transformers.GPT2Config(n_embd=32, n_layer=1, n_head=4), {"target_modules": ["wte"]}),
        ("AutoModelForMaskedLM", BERT, {"modules_to_save": ["cls"]}),
    ],
)
def test_weights_that_stand_in_two_places_are_left_alone(name, config, given):
    (problem,) = check_lora(given, name, config)
    assert "share their weights" in problem.allowed


def test_no_lora_is_nothing_to_check():
    assert check_lora({}, TEXTS, Path("nowhere")) == []


def test_every_name_of_peft_is_offered_or_refused_with_a_reason():
    fields = load_peft().LoraConfig.__dataclass_fields__.keys()
    refused = [name for names in DECIDED.values() for name in names]
    assert sorted([*LORA_VALUES, *refused]) == sorted(fields)
    assert TASK_TYPES.keys() == TASKS.keys()


def test_an_adapter_without_its_weights_or_of_another_model_is_not_merged(tmp_path: Path):
    build = transformers.AutoModelForSequenceClassification.from_config
    add_adapter(build(BERT), {"r": 2}, TEXTS).save_pretrained(tmp_path)
    longer = transformers.BertConfig(**SIZES | {"num_hidden_layers": 3}, vocab_size=60)
    shorter = transformers.BertConfig(**SIZES | {"num_hidden_layers": 1}, vocab_size=60)
    for config in (longer, shorter):
        with pytest.raises(StepError, match="no adapter for this model"):
            merge(build(config), tmp_path)
    torch.save({}, tmp_path / "adapter_model.bin")
    (tmp_path / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(StepError, match=f"no {ADAPTER_WEIGHTS}"):
        merge(build(BERT), tmp_path)


def test_others_in_the_process_go_on_using_torchao():
    torchao = importlib.import_module("torchao")
    load_peft()
    assert sys.modules["torchao"] is torchao
    assert importlib.util.find_spec("torchao") is not None
    assert importlib.import_module("torchtune.modules.low_precision").FrozenNF4Linear


FRESH = """
import sys
from kfp_finetune.components.transformers_train import arguments, lora
assert not {"torch", "transformers", "peft"} & set(sys.modules), "the client has none of them"
import torch, transformers
from transformers import Trainer
torch.set_num_threads(1)
name, folder = "AutoModelForSequenceClassification", sys.argv[1]
config = transformers.BertConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
transformers.BertForSequenceClassification(config).save_pretrained(folder)
model = lora.add_adapter(transformers.BertForSequenceClassification.from_pretrained(folder), {"r": 2}, name)
options = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "max_steps": 1}
arguments = transformers.TrainingArguments(folder, **options, label_names=["labels"])
trainer = Trainer(model, arguments, train_dataset=[{"input_ids": [1, 2], "labels": 0}] * 2)
trainer.train()
trainer.save_model(folder + "/adapter")
lora.merge(transformers.BertForSequenceClassification.from_pretrained(folder), lora.Path(folder + "/adapter"))
import torchao, torchtune.modules.low_precision
assert transformers.utils.is_torchao_available()
print("trained", torchao.__version__)
"""


def test_a_fresh_process_trains_with_peft_beside_an_old_torchao(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", FRESH, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "trained 0.15" in done.stdout, done.stderr
