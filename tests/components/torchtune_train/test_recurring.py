"""A series that goes on from its newest export: what is trained again, from what, and what is left alone."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml
from given import SETTINGS, start
from kfp import dsl

from kfp_finetune.components.export_model.export import export
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.components.initialize_model.start import choose_start
from kfp_finetune.components.torchtune_train.planning import make_plan
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import Manifest, read_manifest
from kfp_finetune.training.plan import Plan
from kfp_finetune.training.planning import Outcome
from kfp_finetune.training.record import record_plan
from kfp_finetune.workspace import open_workspace, point_latest


class Series:
    """A volume with runs of one series, whose trainings teach nothing: their last epoch is what they began with."""

    def __init__(self, directory: Path):
        found = start(directory)
        self.directory, self.root, self.base = directory, found.root, str(directory / "base")
        self.data = str(directory / "rows.jsonl")

    def begin(self, start_from: str = "latest", model: str = "") -> Manifest:
        return choose_start(model or self.base, str(self.root), start_from=start_from, name="series").model

    def plan(self, model: Manifest, skip_unchanged: bool = True, **settings: object) -> Outcome:
        dataset = initialize_dataset(self.data, str(self.root))
        values = SETTINGS | {"method": "full"} | settings
        return make_plan(dataset, model, "series", values, str(self.root), skip_unchanged=skip_unchanged)

    def finish(self, plan: Plan, keep_runs: int = 0) -> Manifest:
        training = self.root / plan.training
        ignored = shutil.ignore_patterns(".*", "MANIFEST*")
        shutil.copytree(self.root / plan.model, training / "epoch_0", ignore=ignored, dirs_exist_ok=True)
        (training / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n")
        return export(plan, "series", str(self.root), keep_runs)

    def run(self, start_from: str = "latest", model: str = "", skip_unchanged: bool = True, **settings: object) -> Plan:
        outcome = self.plan(self.begin(start_from, model), skip_unchanged, **settings)
        if outcome.state != "done":
            self.finish(outcome.plan)
        return outcome.plan

    def change_data(self, seed: int = 1) -> None:
        self.data = str(tiny.write_rows(self.directory / f"rows-{seed}.jsonl", 40, seed))

    def names(self, folder: str) -> set[str]:
        return {path.name for path in (self.root / folder).glob("[!.]*")}

    def latest(self) -> str:
        return (self.root / "latest/series").resolve().name


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Series(tmp_path)


def test_the_same_data_and_settings_end_with_the_newest_export(series: Series):
    first = series.run()
    assert first.model.startswith("models/")
    outcome = series.plan(series.begin())
    assert (outcome.state, outcome.skipped, outcome.plan.key) == ("done", True, first.key)
    assert outcome.plan.training == first.training and outcome.plan.total_steps == first.total_steps
    assert series.names("trainings") == {first.key}
    assert not list((series.root / "exports").glob(".hold-*"))


CHANGES: dict[str, Callable[[Series], Plan]] = {
    "data": lambda series: (series.change_data(), series.run())[1],
    "a setting": lambda series: series.run(learning_rate=1e-3),
    "a setting of the data": lambda series: series.run(held_out="10%"),
    "an advanced setting": lambda series: series.run(advanced={"seed": 7}),
    "nothing, and not to be skipped": lambda series: series.run(skip_unchanged=False),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_trained_from_the_newest_export(series: Series, change: Callable[[Series], Plan]):
    first = series.run()
    second = change(series)
    assert second.key != first.key == second.model.split("/")[1]
    config = yaml.safe_load((series.root / second.training / "config.yaml").read_text())
    merged = series.root / "exports" / first.key / "merged"
    assert config["checkpointer"]["checkpoint_dir"] == config["tokenizer"]["path"] == str(merged) == second.base
    assert config["checkpointer"]["checkpoint_files"] == ["model.safetensors"]
    assert series.latest() == second.key
    assert read_manifest(series.root / "latest/series").facts["origin"] == series.base


def test_each_run_that_is_not_to_be_skipped_trains_on(series: Series):
    plans = [series.run(skip_unchanged=False) for _ in range(3)]
    assert len({plan.key for plan in plans}) == 3
    assert [plan.model.split("/")[1] for plan in plans[1:]] == [plan.key for plan in plans[:-1]]


def test_a_killed_run_is_found_again_by_the_next_one(series: Series):
    series.run(epochs=1)
    killed = series.plan(series.begin(), epochs=2)
    (series.root / killed.plan.training / "epoch_0").mkdir()
    again = series.plan(series.begin(), epochs=2)
    assert again.plan == killed.plan
    assert (killed.state, again.state) == ("new", "resume")


def test_a_run_that_ended_before_the_series_pointed_to_its_export_is_found_finished(series: Series):
    first = series.run()
    series.change_data()
    second = series.run()
    point_latest(open_workspace(str(series.root)), "series", series.root / "exports" / first.key)
    again = series.plan(series.begin())
    assert (again.plan.key, again.state) == (second.key, "trained")


def test_another_model_begins_anew_and_stays_the_series_model(series: Series, tmp_path: Path, capfd):
    series.run()
    other = str(tiny.write_model(tmp_path / "other", seed=1))
    capfd.readouterr()
    second = series.run(model=other)
    assert f"descends from {series.base}: it begins anew with {other}" in capfd.readouterr().out
    assert second.model.startswith("models/")
    assert series.plan(series.begin(model=other)).state == "done"
    series.change_data()
    assert series.run(model=other).model == f"exports/{second.key}/merged"


def test_a_series_that_begins_with_the_model_never_does_the_same_work_twice(series: Series):
    first = series.run("model")
    for skip_unchanged in (True, False):
        outcome = series.plan(series.begin("model"), skip_unchanged)
        assert (outcome.state, outcome.skipped, outcome.plan.key) == ("done", False, first.key)
    assert series.plan(series.begin("latest")).state == "done"
    series.run("latest", skip_unchanged=False)
    again = series.plan(series.begin("model"))
    assert (again.state, again.plan.key) == ("trained", first.key)


def test_what_another_run_exported_meanwhile_is_not_done_again(series: Series):
    waits = series.begin()
    first = series.run()
    outcome = series.plan(waits)
    assert (outcome.state, outcome.plan.key) == ("done", first.key)


def test_a_damaged_export_is_mended_by_a_run_that_begins_with_the_model(series: Series):
    first = series.run()
    (series.root / "exports" / first.key / "merged/model.safetensors").unlink()
    with pytest.raises(UserError, match="run once with start_from=model"):
        series.begin()
    assert series.run("model").key == first.key
    assert series.plan(series.begin()).state == "done"


def test_an_unchanged_run_needs_neither_the_training_nor_room(series: Series, tmp_path: Path):
    first = series.run()
    shutil.rmtree(series.root / first.training)
    model = series.begin()
    model = replace(model, facts={**model.facts, "parameters": 8 * 10**12})
    outcome = series.plan(model)
    assert (outcome.state, outcome.plan.key) == ("done", first.key)
    assert (outcome.plan.base, outcome.plan.dataset, outcome.plan.method) == (first.base, first.dataset, "full")
    artifact, page = dsl.Artifact(uri=str(tmp_path / "plan")), dsl.HTML(uri=str(tmp_path / "page"))
    assert record_plan(outcome, artifact, page, str(series.root)) is False
    assert Plan.from_json(Path(artifact.path).read_text()) == outcome.plan
    assert "no longer on the volume" in Path(page.path).read_text()
    assert series.names("trainings") == set()
    with pytest.raises(UserError, match="GB free"):
        series.plan(model, learning_rate=1e-3)


def test_one_run_is_kept_and_what_others_begin_with(series: Series):
    first = series.run()
    series.change_data(1)
    slow = series.plan(series.begin()).plan
    begun = series.begin()
    series.change_data(2)
    quick = series.plan(series.begin()).plan
    series.finish(quick, keep_runs=1)
    assert series.latest() == quick.key
    assert series.names("exports") == {first.key, quick.key}
    series.change_data(3)
    slowest = series.plan(begun).plan
    assert slowest.model == slow.model == f"exports/{first.key}/merged"
    series.finish(slow, keep_runs=1)
    assert series.names("exports") == {first.key, slow.key}, "the slowest begins with the first"
    series.finish(slowest, keep_runs=1)
    assert series.names("exports") == {slowest.key} == {series.latest()}


def test_a_chain_of_which_one_is_kept_goes_on(series: Series):
    for seed in range(3):
        series.change_data(seed)
        plan = series.plan(series.begin()).plan
        series.finish(plan, keep_runs=1)
        assert series.names("exports") == series.names("trainings") == {plan.key}
    assert series.plan(series.begin()).state == "done"


def test_the_licence_is_handed_down(series: Series):
    readme = "---\nlicense: apache-2.0\n---\n"
    (Path(series.base) / "README.md").write_text(readme)
    series.run()
    series.change_data()
    series.run()
    assert series.begin().facts["license"] == "apache-2.0"


def test_an_export_of_a_version_that_kept_no_origin_is_gone_on_from(series: Series):
    first = series.run()
    manifest = read_manifest(series.root / "latest/series")
    facts = {name: value for name, value in manifest.facts.items() if name not in ("origin", "work", "license")}
    (series.root / "latest/series/MANIFEST.json").write_text(replace(manifest, facts=facts).to_json())
    assert series.run().model == f"exports/{first.key}/merged"
    assert series.plan(series.begin()).state == "done"
