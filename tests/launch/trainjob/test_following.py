"""What is known of a job after each event, and when following it is over."""

import time
from types import SimpleNamespace
from typing import Any

from launch.trainjob.statuses import CRASHED, ENDED_WELL, ENDED_WELL_AND_DELETED, EVICTED, pod, terminated

from kfp_finetune.cluster.watching import Changed, Listed
from kfp_finetune.launch.trainjob.following import SETTLE_SECONDS, View, _goes_on, _is_over, _is_told, updated

UID = "ours"


def job(uid: str = UID, condition: str = "", **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"metadata": {"name": "job", "uid": uid, **metadata}, "status": {"conditions": conditions}}


def listed(*objects: dict[str, Any], kind: str = "pod") -> Listed:
    return Listed(kind, {one["metadata"]["name"]: one for one in objects})


def changed(one: dict[str, Any], kind: str = "pod", gone: bool = False) -> Changed:
    return Changed(kind, one["metadata"]["name"], one, gone)


def after(*events: Listed | Changed) -> View:
    view = View()
    for event in events:
        view = updated(view, event, UID)
    return view


def is_over(view: View) -> bool:
    return _is_over(view, time.monotonic())


def test_before_the_pods_are_listed_nothing_is_known_of_them() -> None:
    assert not after(listed(job(), kind="job")).pods_known
    view = after(listed(job(), kind="job"), listed())
    assert view.pods_known and not view.ends and not is_over(view)


def test_a_pod_that_a_listing_misses_was_deleted_while_the_connection_was_down() -> None:
    view = after(listed(pod(0), pod(1)), listed(pod(0)))
    (end,) = view.ends
    assert (end.node, end.cause, end.retryable) == (1, "it was deleted", True)
    assert view.failed_at and list(view.pods) == [pod(0)["metadata"]["name"], pod(1)["metadata"]["name"]]


def test_a_pod_that_ended_well_and_is_gone_is_no_failure() -> None:
    assert after(listed(ENDED_WELL), listed()).ends == []
    assert after(listed(ENDED_WELL), changed(ENDED_WELL, gone=True)).ends == []


def test_a_pod_that_is_gone_keeps_what_it_ended_with() -> None:
    (end,) = after(listed(pod()), changed(CRASHED), changed(CRASHED, gone=True)).ends
    assert (end.time, end.cause) == ("2026-01-01T00:00:10Z", "it ended with exit status 1")


def test_a_crash_counts_when_the_machine_s_clock_is_ahead_of_this_one() -> None:
    crashed = pod(state=terminated(1, at="2999-01-01T00:00:00Z"))
    for gone in changed(crashed, gone=True), listed():
        (end,) = after(listed(crashed), gone).ends
        assert end.cause == "it ended with exit status 1"


def test_a_pod_whose_end_its_machine_forgets_while_it_starts_it_again_has_ended_all_the_same() -> None:
    creating = pod(state={"waiting": {"reason": "ContainerCreating"}})
    for again in creating, pod():
        for event in changed(again), listed(again):
            (end,) = after(listed(pod()), changed(CRASHED), event).ends
            assert end.cause == "it ended with exit status 1"
    other = {**pod(), "metadata": {**pod()["metadata"], "uid": "another"}}
    assert after(listed(CRASHED), changed(other)).ends == []


def test_what_became_of_the_first_container_is_not_overruled_by_the_next_but_by_what_the_cluster_did() -> None:
    lost = pod(state=terminated(137, "ContainerStatusUnknown"), phase="Failed")
    for next_one in lost, pod(state=terminated(3), restarts=2):
        (end,) = after(listed(CRASHED), changed(next_one)).ends
        assert end.cause == "it ended with exit status 1"
    (end,) = after(listed(CRASHED), changed(EVICTED)).ends
    assert end.retryable and "took it away" in end.cause


def test_a_pod_that_was_deleted_and_ended_well_before_it_went_is_no_failure() -> None:
    going = pod(deleted="2026-01-01T00:00:40Z", grace=30)
    view = after(listed(pod()), changed(going))
    assert view.ends and view.failed_at
    view = updated(view, changed(ENDED_WELL_AND_DELETED), UID)
    assert not view.ends and not view.failed_at


def test_a_running_pod_that_is_gone_was_deleted() -> None:
    (end,) = after(listed(pod()), changed(pod(), gone=True)).ends
    assert end.cause == "it was deleted"


def test_the_first_bad_end_s_time_is_kept() -> None:
    first = after(listed(pod(0), pod(1)), changed(CRASHED))
    assert updated(first, changed(pod(1), gone=True), UID).failed_at == first.failed_at > 0


def test_after_a_bad_end_the_others_are_waited_for_a_moment() -> None:
    view = after(listed(job(), kind="job"), listed(CRASHED))
    assert not _is_over(view, view.failed_at + SETTLE_SECONDS)
    assert _is_over(view, view.failed_at + SETTLE_SECONDS + 1)


def test_a_job_that_is_complete_or_failed_is_over_at_once() -> None:
    for condition in "Complete", "Failed":
        assert is_over(after(listed(job(), kind="job"), changed(job(condition=condition), "job")))
    assert not is_over(after(listed(job(condition="Suspended"), kind="job")))


def suspended_at(time: str) -> dict[str, Any]:
    suspended = job(condition="Suspended")
    suspended["status"]["conditions"][0]["lastTransitionTime"] = time
    return suspended


def made_at(time: str, index: int = 0) -> dict[str, Any]:
    made = pod(index)
    return {**made, "metadata": {**made["metadata"], "name": f"pod-of-{time}", "creationTimestamp": time}}


def test_pods_that_a_queue_took_away_do_not_count_however_late_they_go() -> None:
    before, behind = made_at("2026-01-01T00:00:00Z"), made_at("2026-01-01T00:00:30Z")
    view = after(
        listed(job(), kind="job"),
        listed(before),
        changed(suspended_at("2026-01-01T00:00:20Z"), "job"),
        changed(job(), "job"),
        changed(behind),
        changed(before, gone=True),
    )
    assert list(view.pods) == [behind["metadata"]["name"]] and not view.ends and not view.failed_at
    view = updated(view, changed(behind, gone=True), UID)
    assert [end.cause for end in view.ends] == ["it was deleted"]


def test_a_pod_that_a_queue_took_away_in_the_second_it_was_made_in_does_not_count() -> None:
    second = "2026-01-01T00:00:20Z"
    before, behind = made_at(second), {**made_at(second), "metadata": {**made_at(second)["metadata"], "name": "behind"}}
    view = after(
        listed(job(), kind="job"),
        listed(before),
        changed(suspended_at(second), "job"),
        listed(before),
        changed(job(), "job"),
        changed(behind),
        changed(before, gone=True),
        listed(behind),
    )
    assert list(view.pods) == ["behind"] and not view.ends and not view.failed_at


def test_pods_that_a_queue_gives_in_the_second_the_job_was_made_in_count() -> None:
    second = "2026-01-01T00:00:20Z"
    given = made_at(second)
    view = after(listed(suspended_at(second), kind="job"), listed(given), changed(suspended_at(second), "job"))
    assert list(view.pods) == [given["metadata"]["name"]]


def test_a_condition_that_is_not_true_does_not_count() -> None:
    failed = job(condition="Failed")
    failed["status"]["conditions"][0]["status"] = "False"
    assert not is_over(after(listed(failed, kind="job")))


def test_a_job_that_is_deleted_is_over_from_the_request_on() -> None:
    going = changed(job(deletionTimestamp="2026-01-01T00:00:00Z"), "job")
    for event in going, changed(job(), "job", gone=True), listed(kind="job"):
        view = after(listed(job(), kind="job"), event)
        assert view.deleted and is_over(view)
        assert view.job is not None, "what it last was is kept"


def test_another_job_of_the_name_is_not_ours() -> None:
    other = job("other", "Complete")
    replaced = after(listed(job(), kind="job"), listed(other, kind="job"))
    assert replaced.deleted and replaced.job == job()
    told = after(listed(job(), kind="job"), changed(other, "job"), changed(other, "job", gone=True))
    assert not told.deleted and told.job == job()


def test_a_job_that_was_gone_before_it_was_read_is_over() -> None:
    for event in listed(kind="job"), listed(job("other"), kind="job"):
        view = after(event)
        assert view.job is None and is_over(view)


def test_a_first_node_that_runs_on_without_a_failed_one_is_not_waited_for() -> None:
    crashed = pod(1, terminated(1), phase="Failed")
    assert _goes_on(after(listed(pod(0), crashed)))
    assert not _goes_on(after(listed(CRASHED, pod(1)))), "its log is about to end"
    assert not _goes_on(after(listed(pod(0), pod(1)))), "of a job that is complete the pods may be told late"


def test_a_job_that_ended_well_has_a_log_though_the_pods_are_not_known_yet() -> None:
    nothing_read: Any = SimpleNamespace(has_begun=False, is_silent=True)
    for condition, told in {"Complete": False, "Failed": True}.items():
        view = after(listed(job(condition=condition), kind="job"), listed())
        assert _is_told(view, nothing_read) is told
