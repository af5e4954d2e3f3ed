"""The model card: the Hub's own reader finds what is in it, and nothing from outside adds to it."""

import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from given import start
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from kfp_finetune.components.export_model.card import HUB_TASKS, Provenance, hub_repository, model_card
from kfp_finetune.components.export_model.provenance import gather
from kfp_finetune.training.plan import Plan

PLAN = Plan(
    key="0123abcd",
    training="trainings/0123abcd",
    model="models/base",
    base="Qwen/Qwen2.5-0.5B-Instruct",
    dataset="hf://org/rows@v2",
    method="lora",
    epochs=3,
    num_procs_per_node=2,
    num_nodes=4,
    dtype="bf16",
    total_steps=1200,
    lora_scale=2.0,
    export_checkpoint="best",
    has_chat_template=True,
    train={"rows": 12345},
    held_out={"rows": 67},
    origin="hf://Qwen/Qwen2.5-0.5B-Instruct@main",
    license="apache-2.0",
)
EVALUATION = {"loss_before": 2.5, "loss_after": 1.25, "epoch": "epoch_1", "tokens": 5}
PROVENANCE = Provenance(
    "a" * 40, "b" * 40, "https://kfp.example/#/runs/details/1-2", {"learning_rate": 2e-4, "seed": 0}
)


def load(text: str, directory: Path) -> ModelCard:
    """A card as the Hub's library reads it from a folder, whose metadata any YAML reader reads alike."""
    (directory / "README.md").write_text(text)
    card = ModelCard.load(directory / "README.md")
    head = text.split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(head) == yaml.safe_load(card.data.to_yaml())
    return card


def rendered(text: str) -> tuple[list[str], set[str], set[int]]:
    """What a reader of Markdown makes of a card: its headings but the first, all kinds of content, tables' widths."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    headings = [token.content for before, token in pairwise(tokens) if before.type == "heading_open"]
    kinds = {child.type for token in inline for child in token.children or []} - {"link_open", "link_close"}
    links = [child for token in inline for child in token.children or [] if child.type == "link_open"]
    assert all(str(link.attrs["href"]).startswith(("https://huggingface.co/Qwen/", "https://kfp.")) for link in links)
    rows = "".join({"tr_open": "\n", "th_open": "|", "td_open": "|"}.get(token.type, "") for token in tokens).split()
    return headings[1:], kinds | {token.type for token in tokens}, {len(row) for row in rows}


def test_what_is_known_of_a_model_is_in_its_card(tmp_path: Path) -> None:
    card = load(model_card(PLAN, EVALUATION, True, PROVENANCE), tmp_path)
    data = card.data
    assert (data.base_model, data.license, data.datasets) == ("Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0", ["org/rows"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.tags == ["kfp-finetune", "torchtune", "lora"]
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("loss", 1.25, "org/rows")
    assert "| `loss` | 2.5 | 1.25 |" in card.text
    for fact in ("`lora`", "12,345", "67", "1,200", "4 × 2", f"`{'a' * 40}`", f"`{'b' * 40}`", "`epoch_1`", "`bf16`"):
        assert f"| {fact} |" in card.text, fact
    assert "| `learning_rate` | `0.0002` |" in card.text and "| `seed` | `0` |" in card.text
    assert "| <https://kfp.example/#/runs/details/1-2> |" in card.text
    assert 'PeftModel.from_pretrained(base, "ORGANISATION/NAME", subfolder="adapter")' in card.text
    assert "vllm serve" in card.text


@pytest.mark.parametrize("kind", HUB_TASKS)
def test_each_type_is_loaded_by_its_class_and_the_examples_are_python(kind: str, tmp_path: Path) -> None:
    figures = {"accuracy": 0.5, "f1": 0.25}
    after = {"accuracy": 0.75, "f1": 0.5, "odd": math.inf, "none": None}
    evaluation = {"loss_before": 1.0, "loss_after": math.nan, "figures_before": figures, "figures_after": after}
    plan = replace(PLAN, transformer_type=kind, trainer="transformers")
    card = load(model_card(plan, evaluation, False), tmp_path)
    assert card.data.pipeline_tag == HUB_TASKS[kind]
    assert {each.metric_type: each.metric_value for each in card.data.eval_results} == {"accuracy": 0.75, "f1": 0.5}
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    compile(code, "card", "exec")
    for name in re.findall(r"Auto\w+", code):
        assert hasattr(transformers, name)
    assert f"{kind}.from_pretrained" in code and "peft" not in card.text
    assert ("vllm" in card.text) == (kind == "AutoModelForCausalLM")


HOSTILE = [
    "evil\n---\nlicense: mit\n---\n# Owned",
    "a`b``c``` <script>alert(1)</script> | x | [y](javascript:1) ![z](http://e/x.png)",
    "```\n\n# Heading\n\n- item",
    "\u202egnp.exe\x1b[31m\r\n# Heading",
    '"); import os; os.system("true") #',
    "s3://user:hidden@bucket/rows?X-Amz-Signature=hidden",
    "'single' \"double\" {{ jinja }} {% raw %} : - & * ! %YAML",
    "x" * 5000,
]


def test_perplexity_and_benchmarks_stand_beside_the_loss():
    found = {"arc_easy": {"acc": {"base": 0.25, "tuned": 0.5, "stderr": 0.1}}}
    evaluation = {**EVALUATION, "perplexity_before": 20.0, "perplexity_after": 7.5, "benchmarks": found}
    card = ModelCard(model_card(PLAN, evaluation, has_adapter=False))
    assert "| `perplexity` | 20 | 7.5 |" in card.text
    assert "| `arc_easy.acc` | 0.25 | 0.5 |" in card.text
    results = {each.metric_type: (each.dataset_type, each.metric_value) for each in card.data.eval_results}
    assert results["acc"] == ("arc_easy", 0.5)
    assert results["perplexity"][0] != "arc_easy"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_outside_adds_to_a_card(text: str, tmp_path: Path) -> None:
    plan = replace(PLAN, base=text, dataset=text, origin=text, license=text, key=text)
    evaluation = {**EVALUATION, "epoch": text, "figures_before": {}, "figures_after": {text: 1.0}}
    card = load(model_card(plan, evaluation, True, Provenance(text, text, text, {text: text, "b": [text]})), tmp_path)
    plain = load(model_card(PLAN, EVALUATION, True, PROVENANCE), tmp_path)
    known = {*plain.data.to_dict(), "license_name"} - {"base_model", "base_model_relation", "datasets"}
    assert set(card.data.to_dict()) - {"license"} <= known and card.data.get("license") in ("other", None)
    assert rendered(card.text) == rendered(plain.text)
    assert "hidden" not in card.text and len(card.text) < 20_000 and not set("\x1b\u202e") & set(card.text)
    for code in re.findall(r"^```python\n(.*?)^```$", card.text, re.DOTALL | re.MULTILINE):
        compile(code, "card", "exec")
        assert "os.system" not in code


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("MIT", {"license": "mit"}),
        ("qwen-research", {"license": "other", "license_name": "qwen-research"}),
        ("My Own Licence!", {"license": "other", "license_name": "my-own-licence"}),
        ("", {}),
    ],
)
def test_a_licence_is_told_in_the_hubs_terms(stated: str, expected: dict[str, str], tmp_path: Path) -> None:
    data = load(model_card(replace(PLAN, license=stated), {}, False), tmp_path).data.to_dict()
    assert {name: value for name, value in data.items() if name.startswith("license")} == expected
    assert "model-index" not in data


def test_only_names_on_the_hub_are_linked_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    addresses = ["org/name", "hf://org/name@v1/folder", "models/mine", "/data/x", "s3://bucket/x", "a b", ""]
    assert [hub_repository("model", each) for each in addresses] == ["org/name", "org/name", "", "", "", "", ""]
    plan = replace(PLAN, origin="/data/base", dataset="s3://bucket/x")
    data = load(model_card(plan, EVALUATION, True), tmp_path).data
    assert "base_model" not in data.to_dict() and "datasets" not in data.to_dict()


@pytest.mark.parametrize("folder", ["/home/me/secret-project/base", "file:///home/me/secret-project/base"])
def test_a_folder_is_told_by_its_last_part(folder: str, tmp_path: Path) -> None:
    plan = replace(PLAN, base=folder, origin=folder, dataset=f"{folder}/rows.jsonl")
    text = load(model_card(plan, EVALUATION, True, Provenance(run_link="run-1")), tmp_path).text
    assert "| Base model | `base, a local folder` |" in text and "| Dataset | `rows.jsonl, local files` |" in text
    assert "secret-project" not in text and "| Run | `run-1` |" in text


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_trainings_own_settings_are_in_its_card(method: str, tmp_path: Path) -> None:
    found = start(tmp_path)
    plan = found.plan(method=method, learning_rate=3e-4, seed=11).plan
    provenance = gather(found.root, plan, "rows at 1", "https://kfp.example/run")
    assert provenance.base_revision == found.model.revision
    wanted: dict[str, Any] = {"learning_rate": 3e-4, "seed": 11, "batch_size": 4, "optimizer": "torch.optim.AdamW"}
    assert wanted.items() <= provenance.settings.items() and ("lora_rank" in provenance.settings) == (method == "lora")
    text = load(model_card(plan, {}, method == "lora", provenance), tmp_path).text
    assert "| `learning_rate` | `0.0003` |" in text and json.dumps(str(tmp_path)) not in text
    assert not gather(tmp_path / "empty", plan).settings
