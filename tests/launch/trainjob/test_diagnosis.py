"""What pods' statuses and last lines are taken for: the cause in words, what can be mended, what came first."""

import itertools

import pytest
from launch.trainjob import statuses
from launch.trainjob.statuses import Pod, pod, terminated

from kfp_finetune.launch.trainjob.diagnosis import Ended, diagnosis, ended, first_cause, last_words, with_log

WATCHDOG = (
    "[rank1]:[E101 00:10:00.000 ProcessGroupNCCL.cpp:685] [Rank 1] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=12, OpType=ALLREDUCE, NumelIn=1, Timeout(ms)=600000) ran for 600028 milliseconds"
)
CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"
)
OLD_CUDA_OOM = "torch.cuda.OutOfMemoryError: CUDA out of memory."
DISK_FULL = "OSError: [Errno 28] No space left on device: '/workspace/trainings/x/.tmp/model.safetensors'"
GLOO_CLOSED = (
    "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [10.0.0.7]:21"
)
STORE_LOST = "torch.distributed.DistNetworkError: The client socket has timed out after 60s while trying to connect"
CHILD_KILLED = "  exitcode  : -9 (pid: 42)\n  traceback : Signal 9 (SIGKILL) received by PID 42"
AGENT_STOPPED = "torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15"
NCCL_OPTIONS = "ProcessGroupNCCL initialization options: size: 2, global rank: 0, TIMEOUT(ms): 600000"


@pytest.mark.parametrize(
    ("status", "words", "retryable"),
    [
        ("OOM", "out of memory (OOMKilled)", False),
        ("RESTARTED_AFTER_OOM", "out of memory (OOMKilled)", False),
        ("ABOUT_TO_RESTART", "it ended with exit status 1", False),
        ("RESTARTED_AND_FORGOTTEN", "it refused what it was given", False),
        ("EVICTED", "TerminationByKubelet: The node was low on resource", True),
        ("EVICTED_BY_AN_OLDER_KUBELET", "Evicted: The node was low on resource", True),
        ("PREEMPTED", "PreemptionByScheduler", True),
        ("LOST_NODE", "DeletionByTaintManager", True),
        ("DRAINED_GRACEFULLY", "EvictionByEvictionAPI", True),
        ("SHUT_DOWN", "node shutdown", True),
        ("REBOOTED", "ContainerStatusUnknown", True),
        ("NOT_ADMITTED", "no healthy devices", True),
        ("OUT_OF_CPU", "OutOfcpu", True),
        ("DELETED", "it was deleted", True),
        ("CRASHED_AND_DELETED", "it ended with exit status 1", False),
        ("CRASHED_AND_GOING", "it ended with exit status 1", False),
        ("RESTARTED_AND_DELETED", "it ended with exit status 1", False),
        ("KILLED_WHEN_DELETED", "it was deleted", True),
        ("TOLD_TO_STOP_AND_DELETED", "it was deleted", True),
        ("TOLD_TO_STOP", "SIGTERM", True),
        ("CRASHED", "it ended with exit status 1", False),
        ("KILLED", "trainjob.memory", False),
        ("REFUSED", "it refused what it was given", False),
        ("CANNOT_START", "executable file not found", False),
        ("FAILED_WITHOUT_A_CONTAINER", "Strange: never seen before", False),
    ],
)
def test_a_pod_that_ended_badly_is_explained(status: str, words: str, retryable: bool) -> None:
    end = ended(getattr(statuses, status))
    assert end is not None
    assert words in end.cause
    assert end.retryable == retryable
    assert (end.pod, end.node, end.machine) == ("job-node-0-0-abcde", 0, "machine-0")


@pytest.mark.parametrize(
    "status",
    ["RUNNING", "PULLING", "UNSCHEDULED", "ENDED_WELL", "ENDED_WELL_AND_DELETED", "ENDED_WELL_WHILE_DRAINED"],
)
def test_a_pod_that_did_not_end_badly_is_left_out(status: str) -> None:
    assert ended(getattr(statuses, status)) is None


def test_every_status_is_in_one_of_the_tables() -> None:
    tables = (test_a_pod_that_ended_badly_is_explained, test_a_pod_that_did_not_end_badly_is_left_out)
    rows = itertools.chain.from_iterable(test.pytestmark[0].args[1] for test in tables)
    named = {row if isinstance(row, str) else row[0] for row in rows}
    assert named == {name for name in vars(statuses) if name.isupper()}


def of(status: Pod, *lines: str) -> Ended:
    end = ended(status)
    assert end is not None
    return with_log(end, lines)


@pytest.mark.parametrize(
    ("line", "words", "retryable", "consequence"),
    [
        (WATCHDOG, "the nodes lost each other (NCCL)", True, True),
        ("torch.distributed.DistBackendError: NCCL error: ncclRemoteError: A call failed", "NCCL", True, True),
        (CUDA_OOM, "the GPU's memory is too small", False, False),
        (OLD_CUDA_OOM, "the GPU's memory is too small", False, False),
        (DISK_FULL, "the volume is full", False, False),
        (GLOO_CLOSED, "the nodes lost each other (network)", True, True),
        (STORE_LOST, "the nodes lost each other (network)", True, True),
        (CHILD_KILLED, "a process was killed (SIGKILL)", False, False),
        (AGENT_STOPPED, "it was told to stop (SIGTERM)", True, True),
        (NCCL_OPTIONS, "it ended with exit status 1", False, False),
        ("ValueError: it broke", "it ended with exit status 1", False, False),
    ],
)
def test_a_crash_is_explained_by_its_last_lines(line: str, words: str, retryable: bool, consequence: bool) -> None:
    end = of(statuses.CRASHED, "[step 3]: loss 1.0", *line.splitlines(), "the end")
    assert words in end.cause
    assert (end.retryable, end.consequence) == (retryable, consequence)


def test_running_out_of_memory_outweighs_the_watchdog_s_words_in_the_same_log() -> None:
    assert "GPU's memory" in of(statuses.CRASHED, WATCHDOG, CUDA_OOM).cause


@pytest.mark.parametrize("status", ["OOM", "EVICTED", "REFUSED"])
def test_what_the_cluster_itself_says_is_not_overruled_by_a_log(status: str) -> None:
    assert of(getattr(statuses, status), WATCHDOG, DISK_FULL) == ended(getattr(statuses, status))


def at(seconds: int) -> str:
    return f"2026-01-01T00:00:{seconds:02d}Z"


def crashed(node: int, seconds: int) -> Pod:
    return pod(node, terminated(1, at=at(seconds)), phase="Failed")


@pytest.mark.parametrize(
    ("ends", "node", "retryable"),
    [
        ([of(crashed(0, 9), WATCHDOG), of(pod(1, terminated(137, "OOMKilled", at(11))))], 1, False),
        ([of(crashed(0, 9), GLOO_CLOSED), of(crashed(1, 12), "ValueError: it broke")], 1, False),
        ([of(crashed(0, 9), "ValueError: it broke"), of(crashed(1, 8), CUDA_OOM)], 1, False),
        ([of(crashed(0, 9), WATCHDOG), of(pod(1, {"running": {}}, deleted=at(40)))], 1, True),
        ([of(crashed(0, 13)), of(pod(1, {"running": {}}, deleted=at(40), grace=30))], 1, True),
        ([of(crashed(0, 9), GLOO_CLOSED), of(crashed(1, 7), GLOO_CLOSED)], 1, True),
        ([of(crashed(0, 9), CUDA_OOM), of(pod(1, terminated(143, at=at(8))))], 0, False),
        ([of(crashed(2, 9), CUDA_OOM), of(crashed(1, 9), CUDA_OOM)], 1, False),
        ([of(crashed(0, 9), CUDA_OOM), of(statuses.FAILED_WITHOUT_A_CONTAINER)], 0, False),
    ],
    ids=[
        "a node without memory explains another's watchdog",
        "a crash explains a broken connection before it",
        "of two crashes the earlier",
        "a deleted pod explains another's watchdog",
        "a pod counts as gone from when its deletion was asked for",
        "of two broken connections the earlier",
        "a crash explains who was told to stop",
        "at the same second the lowest node",
        "a known time comes before none",
    ],
)
def test_of_several_ends_the_one_that_explains_the_others_is_told(
    ends: list[Ended], node: int, retryable: bool
) -> None:
    for order in itertools.permutations(ends):
        assert (first_cause(order).node, first_cause(order).retryable) == (node, retryable)


def test_a_diagnosis_names_the_cause_and_shows_every_node_s_last_lines() -> None:
    ends = [of(pod(1, terminated(137, "OOMKilled", at(11)))), of(crashed(0, 9), WATCHDOG)]
    lines = diagnosis(ends, {"job-node-0-0-abcde": ["step 3", WATCHDOG]}).splitlines()
    assert lines[0].startswith("training failed on node 1 (job-node-0-1-abcde on machine-1): out of memory (OOMKilled)")
    assert "trainjob.memory" in lines[0]
    assert lines[1:4] == ["--- node 0, job-node-0-0-abcde: the nodes lost each other (NCCL)", "step 3", WATCHDOG]
    assert lines[4].startswith("--- node 1, job-node-0-1-abcde: out of memory")
    assert "its log is gone" in lines[5] and len(lines) == 6


def test_a_pod_that_never_had_a_machine_is_told_without_one() -> None:
    end = ended({**statuses.DELETED, "spec": {}})
    assert end is not None
    assert diagnosis([end], {}).startswith("training failed on node 0 (job-node-0-0-abcde): it was deleted")


def test_the_last_words_are_those_that_the_container_left_itself() -> None:
    left = "training ended with exit status 1\nValueError: it broke"
    crashed_once = terminated(1, "Error", message=left)
    assert last_words(pod(state=crashed_once)) == left.splitlines()
    assert last_words(pod(state={"running": {}}, restarts=1, last=crashed_once)) == left.splitlines()
    assert last_words(statuses.CANNOT_START) == [], "those are the machine's, and told as the cause"
    assert last_words(statuses.CRASHED) == last_words(statuses.RUNNING) == []
