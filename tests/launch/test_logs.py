"""A log that is followed through everything that befalls a connection: each line once, in order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes import client
from servers.kubernetes_api import Answer, Request, Stop, refuse, say, serving, stream

from kfp_finetune.cluster import logs
from kfp_finetune.cluster.logs import follow_log

LOG, POD = "/api/v1/namespaces/here/pods/p/log", "/api/v1/namespaces/here/pods/p"
START = datetime.now(UTC) - timedelta(seconds=30)


def at(number: int) -> str:
    """The time of a line, with nine digits as nodes write it."""
    return (START + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def written(*texts: str) -> list[bytes]:
    """Lines, a second apart."""
    return [f"{at(number)} {text}\n".encode() for number, text in enumerate(texts)]


def state(is_running: bool) -> Answer:
    """What the API server says of the pod."""
    now = {"running": {}} if is_running else {"terminated": {"exitCode": 0}}
    status = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": now}
    return say({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}})


def read(log: list[Answer], running: int = 0) -> tuple[list[str], list[Request], Stop]:
    """The texts that are read when a server answers so for the log, while the container runs for some looks at it."""
    answers, looks = iter(log), iter([True] * running)

    def choose(request: Request) -> Answer:
        return next(answers) if request.path == LOG else state(next(looks, False))

    stop = Stop()
    with serving(choose) as (server, api):
        texts = [line.text for line in follow_log(client.CoreV1Api(api), "here", "p", "node", stop)]
    assert next(answers, None) is None, "every answer was asked for"
    return texts, [request for request in server.requests if request.path == LOG], stop


def test_a_log_is_read_to_its_end() -> None:
    log = b"".join(written("one", "", " two  words ", "ünï"))
    texts, requests, _ = read([stream(log), stream(log)])
    assert texts == ["one", "", " two  words ", "ünï"]
    query = requests[0].query
    assert (query["container"], query["follow"], query["timestamps"]) == ("node", "True", "True")
    assert "sinceSeconds" not in query and int(requests[1].query["sinceSeconds"]) >= 60


def test_a_line_in_pieces_is_one_line() -> None:
    log = b"".join(written("ünï", "two"))
    pieces = [log[place : place + 1] for place in range(len(log))]
    assert read([stream(*pieces), stream(*pieces)])[0] == ["ünï", "two"]


def test_a_line_that_was_cut_is_read_whole_by_the_next_connection() -> None:
    log = written("one", "two", "three")
    texts, _, _ = read([stream(log[0], log[1][:35], cut=True), stream(*log), stream(*log)])
    assert texts == ["one", "two", "three"]


def test_lines_of_one_instant_are_all_read_and_once() -> None:
    one, two = (f"{at(0)} {text}\n".encode() for text in ("one", "two"))
    three = f"{at(0)} three\n".encode()
    texts, _, _ = read([stream(one, two, cut=True), stream(one, two, three), stream(one, two, three)])
    assert texts == ["one", "two", "three"]


def test_a_clock_that_is_set_back_loses_no_line_of_a_connection() -> None:
    early, late = written("early", "late")
    assert read([stream(late, early), stream()])[0] == ["late", "early"]


def test_a_rotated_log_or_a_restarted_server_ends_no_reading_while_the_container_runs() -> None:
    log = written("one", "two", "three")
    texts, _, _ = read([stream(log[0]), stream(*log[:2]), stream(*log), stream(*log)], running=2)
    assert texts == ["one", "two", "three"]


def test_what_was_written_while_a_connection_was_ended_is_read_after_the_container_s_end() -> None:
    log = written("one", "two", "the last words")
    assert read([stream(log[0]), stream(*log)])[0] == ["one", "two", "the last words"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_of_the_server_s_is_waited_out(status: int) -> None:
    log = written("one", "two")
    texts, _, stop = read([stream(log[0], cut=True), refuse(status), refuse(status), stream(*log), stream(*log)])
    assert texts == ["one", "two"]
    most = [0, 0, 0.5, 1, 0]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(stop.pauses, most, strict=True))


def test_a_server_that_does_not_know_the_rights_yet_is_waited_for() -> None:
    log = written("one", "two")
    answers = [stream(log[0], cut=True), refuse(401), refuse(403), stream(*log), stream(*log)]
    assert read(answers)[0] == ["one", "two"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_raised(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "REFUSAL_SECONDS", 0.0)
    with pytest.raises(client.ApiException) as refused:
        read([refuse(status)])
    assert refused.value.status == status


def test_a_pod_that_is_deleted_after_its_end_has_been_read() -> None:
    assert read([stream(*written("one")), refuse(404)])[0] == ["one"]


def test_what_is_no_line_of_the_log_is_left_out() -> None:
    lost = b"unable to retrieve container logs for containerd://0123\n"
    assert read([stream(*written("one"), lost), stream()])[0] == ["one"]


def test_who_is_told_to_stop_reads_no_further() -> None:
    stop = Stop()
    with serving(lambda request: stream(*written("one", "two"))) as (_, api):
        reading = follow_log(client.CoreV1Api(api), "here", "p", "node", stop)
        assert next(reading).text == "one"
        stop.set()
        assert list(reading) == []


TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=6), min_size=1, max_size=8)


@settings(max_examples=25)
@given(
    texts=TEXTS,
    gaps=st.lists(st.sampled_from([0, 1]), min_size=8, max_size=8),
    faults=st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=5),
)
def test_wherever_connections_end_each_line_is_read_once(
    texts: list[str], gaps: list[int], faults: list[tuple[int, bool]]
) -> None:
    times = [sum(gaps[:number]) for number in range(len(texts))]
    log = b"".join(f"{at(time)} {text}\n".encode() for time, text in zip(times, texts, strict=True))
    ends = [stream(log[:end], cut=cut) for end, cut in faults]
    running = sum(not cut for _, cut in faults)
    assert read([*ends, stream(log), stream(log)], running)[0] == texts
