"""`kfp-finetune plan`: what a training would need, from config.json and the settings alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kfp_finetune.client.cli import app
from kfp_finetune.client.plan import Rows, expect
from kfp_finetune.errors import UserError
from kfp_finetune.gpus import GPUS

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
NO_TORCH = """
import sys
from kfp_finetune.client.cli import app
try:
    app()
finally:
    print(",".join(name for name in ("torch", "transformers", "datasets") if name in sys.modules), file=sys.stderr)
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write(tmp_path, LLAMA_8B)


def write(directory: Path, config: Any) -> str:
    (directory / "model").mkdir()
    (directory / "model" / "config.json").write_text(json.dumps(config))
    return str(directory / "model")


def plan(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments])


def answer(*arguments: str) -> Any:
    done = plan(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_table_has_each_gpu_and_the_time_if_rows_are_given(model: str):
    done = plan(model, "--rows", "1000", "--mean-tokens", "500")
    assert done.exit_code == 0, done.output
    assert all(gpu.name in done.stdout for gpu in GPUS)
    assert "8,030,261,248 parameters" in done.stdout and "An epoch" in done.stdout
    assert "An epoch" not in plan(model).stdout


def test_four_bits_fit_where_whole_weights_do_not(model: str):
    def smallest(*arguments: str) -> float:
        return min(gpu["memory_gib"] for gpu in answer(model, *arguments)["gpus"] if gpu["fits"])

    assert smallest("--method", "qlora") < smallest("--method", "lora") < smallest("--method", "full")


def test_time_goes_with_rows_and_gpus_and_packing_leaves_out_nothing(model: str):
    def seconds(*arguments: str) -> float:
        gpus = answer(model, "--mean-tokens", "512", *arguments)["gpus"]
        return next(gpu["seconds_an_epoch"] for gpu in gpus if gpu["gpu"] == "H100")

    once = seconds("--rows", "8000")
    assert seconds("--rows", "16000") == pytest.approx(2 * once)
    assert seconds("--rows", "8000", "--set", "num_procs_per_node=2") == pytest.approx(once / 2, rel=0.05)
    assert seconds("--rows", "8000", "--set", "packed=true") == pytest.approx(once, rel=0.1)
    assert seconds("--rows", "8000", "--set", 'advanced={"max_steps_per_epoch": 100}') == pytest.approx(once / 10)


def test_values_of_a_run_s_file_are_taken_and_those_of_other_steps_left_alone(model: str, tmp_path: Path):
    file = tmp_path / "values.yaml"
    file.write_text("dataset: org/rows\nmethod: full\nmax_seq_len: 512\nvolume: mine\n")
    told = answer(model, "--file", str(file), "--set", "max_seq_len=1024")
    assert told["trained_parameters"] == told["parameters"] == 8_030_261_248
    assert told["expected"]["tokens_a_row"] == 1024


def test_what_fits_nowhere_is_said_and_is_no_error(tmp_path: Path):
    huge = write(tmp_path, LLAMA_8B | {"num_hidden_layers": 320})
    done = plan(huge, "--method", "full", "--set", "batch_size=8")
    assert done.exit_code == 0
    assert "warning:" in done.stdout and "qlora" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "lorra"], "method: given 'lorra'"),
        (["--set", "batchsize=2"], "batch_size"),
        (["--set", "max_seq_len=9000"], "max_seq_len: given 9000; allowed: at most 8192"),
        (["--set", 'advanced={"lora_alpa": 2}'], "lora_alpha"),
        (["--file", "absent.yaml"], "--file"),
    ],
)
def test_a_wrong_value_is_one_message_and_status_2(model: str, arguments: list[str], said: str):
    done = plan(model, *arguments)
    assert done.exit_code == 2
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("config", [{"model_type": "bert"}, [], {**LLAMA_8B, "hidden_act": "relu"}])
def test_a_model_that_cannot_be_trained_is_refused(tmp_path: Path, config: Any):
    with pytest.raises(UserError, match="model"):
        expect(write(tmp_path, config), {}, [], Rows())


@pytest.mark.parametrize("text", [None, "{"])
def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path, text: str | None):
    (tmp_path / "other.txt").write_text("")
    if text:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        expect(str(tmp_path), {}, [], Rows())


def test_neither_torch_nor_transformers_is_needed(model: str):
    command = [sys.executable, "-c", NO_TORCH, "plan", model, "--set", 'overrides={"optimizer.betas": [0.9, 0.95]}']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
