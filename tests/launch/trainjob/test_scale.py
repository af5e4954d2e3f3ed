"""What a training asks of the API server, from its submission to its end, on 1, 16 and 256 nodes."""

from collections import Counter

import pytest
from servers.trainjobs import LAST_WORDS, Play, Played, playing

from kfp_finetune.launch.process import LaunchError
from kfp_finetune.launch.trainjob import following
from kfp_finetune.launch.trainjob.following import PODS_SHOWN
from kfp_finetune.launch.trainjob.run import run_trainjob
from kfp_finetune.launch.trainjob.spec import JobSpec

NODES = (1, 16, 256)


@pytest.fixture(autouse=True)
def without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's speed: no sign of life but the last one."""
    monkeypatch.setattr(following, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(following, "BEAT_SECONDS", 600.0)
    monkeypatch.setattr(following, "IDLE_BEAT_SECONDS", 600.0)


def ran(num_nodes: int, play: Play) -> tuple[Played, list[str], str]:
    """What was asked for while a training was run, the lines that came, and why it failed."""
    spec = JobSpec(
        "finetune-key", "torch-distributed", "ClusterTrainingRuntime", "image", ["python"], num_nodes, 1, "", "claim",
        "/workspace",
    )  # fmt: skip
    lines: list[str] = []
    with playing(play) as (played, cluster):
        try:
            run_trainjob(cluster, spec, "run", lines.append)
        except LaunchError as error:
            return played, lines, str(error)
    return played, lines, ""


def test_requests_and_log_do_not_grow_with_the_nodes() -> None:
    counts = {}
    for nodes in NODES:
        played, lines, failure = ran(nodes, Play())
        assert not failure and len(lines) == Play().steps
        assert played.told == 5 * nodes, "each change of each pod comes once, over one watch"
        counts[nodes] = {**played.counts, "bytes": played.log_bytes}
    assert counts[1] == counts[16] == counts[256]
    expected = Counter(create=1, watch=2, read=2, patch=1)
    assert {verb: count for verb, count in by_verb(counts[1]).items() if verb in expected} == expected


def by_verb(counts: dict[str, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, count in counts.items():
        found[name.split()[0]] += count
    return found


@pytest.mark.parametrize("nodes", NODES)
def test_a_failure_reads_the_logs_of_a_few_nodes(nodes: int) -> None:
    played, _, failure = ran(nodes, Play(failing=tuple(range(nodes))))
    assert failure.startswith("training failed on node 0")
    follows = 2
    assert played.counts["read pods/log"] == follows + 2 * min(nodes, PODS_SHOWN)
    one, _, _ = ran(nodes, Play(failing=(nodes - 1,)))
    assert one.counts["read pods/log"] <= follows + 2
    for each in played, one:
        assert each.counts["create trainjobs"] == each.counts["delete trainjobs"] == 1
        assert sum(each.counts.values()) - each.counts["read pods/log"] <= 20


def test_a_crash_that_the_runtime_tidies_away_ends_the_training_with_what_it_said_last() -> None:
    played, _, failure = ran(2, Play(failing=(1,), forgets=True))
    said = failure.splitlines()
    assert said[0].startswith("training failed on node 1") and said[0].endswith("it ended with exit status 1")
    assert said[2:] == LAST_WORDS.splitlines()
    assert played.counts["create trainjobs"] == 1, "another attempt would only crash again"


def test_a_failure_of_a_job_that_was_deleted_before_is_not_this_one_s() -> None:
    played, lines, failure = ran(1, Play(leftover=True))
    assert not failure and len(lines) == Play().steps
    assert played.counts["create trainjobs"] == 2
