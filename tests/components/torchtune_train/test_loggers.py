"""The figures of real trainings read back from TensorBoard, MLflow and W&B; trackers that fail end no training."""

import inspect
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torchtune.training.metric_logging
import wandb
from given import start
from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from kfp_finetune.components.torchtune_train.loggers import LOGGERS, check_loggers
from kfp_finetune.components.torchtune_train.train import train
from kfp_finetune.launch.process import LaunchError
from kfp_finetune.metrics import read_metrics
from kfp_finetune.training.epochs import newest_epoch

EXPERIMENT = "experiment"


@pytest.fixture(autouse=True)
def file_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


Losses = list[tuple[int, float]]


def in_file(training: Path) -> dict[int, float]:
    return {int(row["step"]): row["loss"] for row in read_metrics(training / "metrics.jsonl")}


def in_tensorboard(folder: Path) -> Losses:
    accumulator = EventAccumulator(str(folder), {"tensors": 0}, purge_orphaned_data=False).Reload()
    return [(event.step, event.tensor_proto.float_val[0]) for event in accumulator.Tensors("loss")]


def in_mlflow(store: str) -> tuple[Run, Losses]:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    return run, [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss")]


def in_wandb(file: Path) -> tuple[Any, Losses]:
    """The run and its losses from W&B's own file: a LevelDB log of protobuf records."""
    data, position, records = file.read_bytes(), 7, []
    while position + 7 <= len(data):
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:  # what fills up a block
            position += 32768 - position % 32768
            continue
        assert kind == 1, "a record that is divided between two blocks is not read here"
        records.append(wandb_internal_pb2.Record.FromString(data[position + 7 : position + 7 + length]))
        position += 7 + length
    (run,) = [record.run for record in records if record.HasField("run")]
    steps = [
        {"".join(item.nested_key) or item.key: float(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    return run, [(int(step["global_step"]), step["loss"]) for step in steps]


def test_the_figures_of_a_training_and_of_its_resumption_go_to_one_run_of_every_tracker_but_not_over_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found, store = start(tmp_path), (tmp_path / "mlruns").as_uri()
    loggers = {
        "tensorboard": {},
        "mlflow": {"tracking_uri": store, "experiment_name": EXPERIMENT},
        "wandb": {"mode": "offline", "project": "project", "tags": ["a", "b"]},
    }
    plan = found.plan(metric_loggers=loggers, epochs=2, num_procs_per_node=2, batch_size=2).plan
    training = found.root / plan.training
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "WANDB_BASE_URL"):
            monkeypatch.setenv(name, address)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        train(plan, str(found.root))
        with pytest.raises(BlockingIOError):
            listener.accept()

    losses = in_file(training)
    assert list(losses) == list(range(1, plan.total_steps + 1))
    first, in_first = in_mlflow(store)
    assert (first.info.run_name, first.info.status) == (plan.key, "FINISHED")
    assert first.data.metrics.keys() >= {"loss", "lr", "grad_norm", "tokens_per_second"}
    (offline,) = (training / "wandb").glob("offline-run-*/*.wandb")
    run, in_offline = in_wandb(offline)
    assert (run.display_name, run.project, list(run.tags)) == (plan.key, "project", ["a", "b"])
    for logged in (in_tensorboard(training / "tensorboard"), in_first, in_offline):
        assert len(logged) == len(losses) and dict(logged) == pytest.approx(losses, rel=1e-6)

    newest = newest_epoch(training)
    assert newest is not None
    shutil.rmtree(newest)
    train(plan, str(found.root))
    assert in_file(training) == pytest.approx(losses, abs=1e-6)
    again, in_again = in_mlflow(store)
    assert (again.info.run_id, again.info.status) == (first.info.run_id, "FINISHED")
    for logged in (in_tensorboard(training / "tensorboard"), in_again):
        assert len(logged) == len(losses) * 3 // 2 and dict(logged) == pytest.approx(losses, abs=1e-5)
    offlines = (training / "wandb").glob("offline-run-*/*.wandb")
    assert sorted(len(in_wandb(file)[1]) for file in offlines if in_wandb(file)[0].run_id == run.run_id) == [
        len(losses) // 2,
        len(losses),
    ]


def test_a_training_whose_tracker_cannot_be_reached_says_so_and_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = start(tmp_path)
    loggers = {"mlflow": {"tracking_uri": f"http://127.0.0.1:{port}"}, "tensorboard": {}}
    plan = found.plan(metric_loggers=loggers).plan
    train(plan, str(found.root))
    said = [line for line in capfd.readouterr().out.splitlines() if "mlflow" in line]
    assert len(said) == 1 and "mlflow gets no more figures, the training goes on" in said[0]
    training = found.root / plan.training
    assert dict(in_tensorboard(training / "tensorboard")) == pytest.approx(in_file(training), rel=1e-6)
    assert len(in_file(training)) == plan.total_steps


LOSES_ITS_TRACKER = textwrap.dedent("""
    import pathlib, shutil, sys
    from kfp_finetune.components.torchtune_train.metrics import MetricsFile
    training = pathlib.Path(sys.argv[1])
    store = training / "mlruns"
    loggers = {"mlflow": {"tracking_uri": store.as_uri()}, "tensorboard": {}}
    metrics = MetricsFile(str(training / "metrics.jsonl"), 3, loggers)
    metrics.log_dict({"loss": 3.0}, 1)
    shutil.rmtree(store)
    metrics.log_dict({"loss": 2.0}, 2)
    metrics.log_dict({"loss": 1.0}, 3)
    metrics.close()
""")


def test_a_tracker_that_fails_in_the_midst_is_left_out_with_one_line(tmp_path: Path):
    ran = subprocess.run([sys.executable, "-c", LOSES_ITS_TRACKER, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("mlflow gets no more figures, the training goes on") == 1
    assert "Traceback" not in ran.stderr
    assert in_file(tmp_path) == {1: 3.0, 2: 2.0, 3: 1.0}
    assert dict(in_tensorboard(tmp_path / "tensorboard")) == {1: 3.0, 2: 2.0, 3: 1.0}


def test_a_training_that_fails_is_a_failed_run(tmp_path: Path):
    found, store = start(tmp_path), (tmp_path / "mlruns").as_uri()
    loggers = {"mlflow": {"tracking_uri": store, "experiment_name": EXPERIMENT}}
    plan = found.plan(metric_loggers=loggers).plan
    shutil.rmtree(found.root / plan.training / "tokens")
    with pytest.raises(LaunchError, match="tokens"):
        train(plan, str(found.root))
    assert in_mlflow(store)[0].info.status == "FAILED"


@pytest.mark.parametrize(
    ("loggers", "what", "said"),
    [
        ({"comet": {}}, "metric_loggers", "'comet'; allowed: tensorboard, mlflow, wandb"),
        ({"tensorboard": {"logdir": "x"}}, "metric_loggers.tensorboard", "'logdir'; allowed: log_dir"),
        ({"wandb": {"tags": "one"}}, "metric_loggers.wandb.tags", "'one'; allowed: a valid list"),
        ({"wandb": {"mode": "shared"}}, "metric_loggers.wandb.mode", "'online' or 'offline'"),
        ({"tensorboard": {"log_dir": 3}}, "metric_loggers.tensorboard.log_dir", "3; allowed: a valid string"),
        ({"mlflow": {}}, "metric_loggers.mlflow", "MLFLOW_TRACKING_URI"),
    ],
)
def test_what_a_tracker_cannot_take_is_refused(
    loggers: dict[str, dict[str, Any]], what: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (problem,) = check_loggers(loggers)
    assert problem.what == what and said in str(problem)


@pytest.mark.parametrize(
    ("name", "argument", "value", "variable"),
    [
        ("wandb", "api_key", "hunter2", "WANDB_API_KEY"),
        ("mlflow", "tracking_token", "hunter2", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow", "tracking_uri", "https://user:hunter2@mlflow.example.com", "MLFLOW_TRACKING_PASSWORD"),
        ("mlflow", "tracking_uri", "https://hunter2@mlflow.example.com", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow", "tracking_uri", "https://mlflow.example.com/?access_token=hunter2", "MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_a_secret_is_refused_without_being_shown(name: str, argument: str, value: str, variable: str):
    given = {"tracking_uri": "https://mlflow.example.com"} if name == "mlflow" else {}
    (problem,) = check_loggers({name: given | {argument: value}})
    assert "hunter2" not in str(problem) and "environment" in problem.mend and variable in problem.mend


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (problem,) = check_loggers({"wandb": {}, "tensorboard": {}})
    assert "wandb" in problem.given and 'pip install "kfp-finetune[loggers]"' in problem.mend


@pytest.mark.parametrize("name", LOGGERS)
def test_every_argument_that_is_allowed_is_one_of_the_logger(name: str):
    logger = LOGGERS[name]
    taken = set(inspect.signature(getattr(torchtune.training.metric_logging, logger.component)).parameters)
    if name == "wandb":
        taken |= set(inspect.signature(wandb.init).parameters)
    assert logger.arguments.keys() <= taken
