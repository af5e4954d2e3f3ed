"""What torchtune trains by other pipelines than the first, on two nodes of a real cluster, to a verified export."""

import json
import re
from pathlib import Path

import pytest
from cluster.pods import TESTS, run_to_its_end, start_pipeline, start_pod

pytestmark = pytest.mark.xdist_group("trainings")  # two at once would take each other's processors

PIPELINES = Path(__file__).parents[2] / "pipelines"

MAKE = """
import pathlib, preferences, tiny
here = pathlib.Path("/workspace/more")
preferences.write(here.parent / "more.jsonl", preferences.rows(40))
tiny.write_model(here / "teacher", "qwen2", num_hidden_layers=3)
"""

OF_ALL = {
    "model": "/workspace/in/base",
    "dataset": "/workspace/in/rows.jsonl",
    "create_volume": False,
    "accelerator": "",
    "dtype": "fp32",
    "max_seq_len": 128,
    "batch_size": 2,
    "held_out": "20%",
    "launcher": "trainjob",
    "num_nodes": 2,
    "trainjob": {"env": {"OMP_NUM_THREADS": "1"}},
}
OWN = {
    "preference_tuning": {"dataset": "/workspace/more.jsonl", "learning_rate": 5e-3},
    "distillation": {"teacher": "/workspace/more/teacher", "kd_ratio": 0.7, "learning_rate": 5e-3},
    "sweep": {"search": {"learning_rate": [5e-3, 1e-4]}},
}


@pytest.fixture(scope="module")
def more(site, eventually):
    """Pairs of answers and a teacher, beside the model and rows that are there."""
    files = {name: (TESTS / name).read_text() for name in ("preferences.py", "tiny.py")}
    printed = run_to_its_end(
        site, eventually, start_pod(site, ["python", "/scripts/main.py"], {"main.py": MAKE, **files})
    )
    assert "Traceback" not in printed, printed


@pytest.mark.parametrize("name", OWN)
def test_two_nodes_train_to_an_export(name, site, eventually, more):
    own = {"name": name.replace("_", "-"), "volume": site.claim, "train_image": site.image, **OWN[name]}
    printed = run_to_its_end(
        site, eventually, start_pipeline(site, PIPELINES / name / "pipeline.yaml", OF_ALL | own), 600
    )
    assert f"'{own['name']}'\x1b[0m finished with status \x1b[92mSUCCESS" in printed, printed[-5000:]
    keys = set(re.findall(r"TrainJob finetune-(\w+): created", printed))
    assert len(keys) == len(OWN[name].get("search", {}).get("learning_rate", [0]))
    for key in keys:
        assert f"TrainJob finetune-{key}: deleted; its checkpoints are kept" in printed
    show = f"""
import json, pathlib
export = pathlib.Path("/workspace/latest/{own["name"]}").resolve()
training = pathlib.Path("/workspace/trainings") / export.name
logs = [path.name for path in (training / "logs").iterdir()]
print(json.dumps({{**json.loads((training / "evaluation.json").read_text()), "key": export.name, "logs": logs}}))
"""
    found = json.loads(run_to_its_end(site, eventually, start_pod(site, ["python", "-c", show])).splitlines()[-1])
    assert found["key"] in keys and {"node-0", "node-1"} <= set(found["logs"])
    assert found["loss_after"] < found["loss_before"]
