"""What runs on a server of Kubeflow Pipelines are given in tests."""

from pathlib import Path

PIPELINE = Path(__file__).parents[1] / "pipelines" / "torchtune_finetune" / "pipeline.yaml"
GIVEN = {"model": "hf://org/model", "dataset": "hf://org/rows"}
