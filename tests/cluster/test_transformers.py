"""A model of transformers that is fine-tuned on two nodes of a real cluster, from rows to a verified export."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from cluster.pods import TESTS, run_to_its_end, start_pipeline, start_pod

pytestmark = pytest.mark.xdist_group("trainings")  # two at once would take each other's processors

PIPELINE = Path(__file__).parents[2] / "pipelines/transformers_finetune/pipeline.yaml"

MAKE = """
import csv, pathlib
from small_models import save_base, write_bert
from small_rows import opinions
here = pathlib.Path("/workspace/opinions")
rows = opinions(500, 1)
save_base(write_bert(here / "base", (row["text"] for row in rows), size=300), "BertModel")
with (here / "rows.csv").open("w", newline="") as file:
    csv.writer(file).writerows([["review", "verdict"], *([row["text"], row["label"]] for row in rows)])
"""

PREDICT = """
import sys
from transformers import pipeline
tell = pipeline("text-classification", model=sys.argv[1])
print("praise" == tell("the soup was lovely and the room too")[0]["label"],
      "blame" == tell("the soup was not lovely and the room too")[0]["label"])
"""


@pytest.fixture
def ended(site, eventually):
    """Return a function that waits for a pod's end; it returns what the pod printed."""
    return partial(run_to_its_end, site, eventually, seconds=300)


def test_two_nodes_learn_to_tell_praise_from_blame_to_an_export_that_predicts(site, ended):
    files = {name: (TESTS / name).read_text() for name in ("small_models.py", "small_rows.py")}
    made = start_pod(site, ["python", "/scripts/main.py"], {"main.py": MAKE, **files})
    assert "Traceback" not in ended(made)
    arguments = {
        "model": "/workspace/opinions/base",
        "dataset": "/workspace/opinions/rows.csv",
        "transformer_type": "AutoModelForSequenceClassification",
        "column_map": {"text": "review", "label": "verdict"},
        "name": "opinions",
        "epochs": 6,
        "learning_rate": 2e-3,
        "dtype": "fp32",
        "held_out": "20%",
        "strategy": "fsdp",
        "launcher": "trainjob",
        "num_workers": 2,
        "resources_per_worker": {"gpu": 0, "memory": "2Gi"},
        "trainjob": {"env": {"OMP_NUM_THREADS": "1"}},
        "create_volume": False,
        "volume": site.claim,
        "train_image": site.image,
    }
    printed = ended(start_pipeline(site, PIPELINE, arguments))
    assert "'transformers-finetune'\x1b[0m finished with status \x1b[92mSUCCESS" in printed, printed[-5000:]
    key = re.search(r"TrainJob finetune-(\w+): created", printed)[1]
    assert f"TrainJob finetune-{key}: deleted; its checkpoints are kept" in printed
    show = f"""
import json, os
training = "/workspace/trainings/{key}"
print(json.dumps({{**json.load(open(training + "/evaluation.json")), "logs": os.listdir(training + "/logs")}}))
"""
    found = json.loads(ended(start_pod(site, ["python", "-c", show])).splitlines()[-1])
    assert found["figures_before"]["accuracy"] < 0.75 and found["figures_after"]["accuracy"] > 0.95
    assert {"node-0", "node-1"} <= set(found["logs"])
    told = start_pod(site, ["python", "/scripts/main.py", "/workspace/latest/opinions/merged"], {"main.py": PREDICT})
    assert ended(told).splitlines()[-1] == "True True"
