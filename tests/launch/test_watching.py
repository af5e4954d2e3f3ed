"""Objects that are followed through everything that befalls a watch: each change once, in order."""

from functools import partial
from queue import Queue
from typing import Any

import pytest
from kubernetes import client
from servers.kubernetes_api import Answer, Request, Stop, ending, in_order, lines, refuse, say, serving, stream

from kfp_finetune.cluster.watching import LONGEST_PAUSE, Broken, Changed, Listed, follow


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def listing(version: int, *names: str) -> Answer:
    return say({"metadata": {"resourceVersion": str(version)}, "items": [pod(name, version) for name in names]})


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": pod(name, version)}


def error(code: int, **more: str) -> dict[str, Any]:
    return {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "no", **more}}


def told(*answers: Answer) -> tuple[list[str], list[Request], Stop]:
    """What following tells of pods when a server gives these answers; the last one ends it."""
    stop, events = Stop(), Queue()
    script = [*answers[:-1], ending(stop, answers[-1])]
    with serving(in_order(script)) as (server, api):
        fetch = partial(client.CoreV1Api(api).list_namespaced_pod, "here", label_selector="job=ours")
        follow("pod", fetch, events, stop)
    return [in_words(events.get_nowait()) for _ in range(events.qsize())], server.requests, stop


def in_words(found: Any) -> str:
    if isinstance(found, Listed):
        return f"all: {' '.join(found.objects)}"
    if isinstance(found, Changed):
        version = found.object["metadata"]["resourceVersion"]
        return f"{'gone' if found.gone else 'now'}: {found.name} {version}"
    return f"broken: {found.error.status}"


def from_version(requests: list[Request]) -> list[str]:
    """What each request was: a list, or a watch from a version on."""
    assert {(request.path, request.query["labelSelector"]) for request in requests} == {
        ("/api/v1/namespaces/here/pods", "job=ours")
    }
    return [request.query.get("resourceVersion", "list") for request in requests]


def test_what_there_is_comes_first_and_then_each_change() -> None:
    changes = [event("ADDED", "b", 11), event("MODIFIED", "a", 12), event("DELETED", "b", 13)]
    words, requests, _ = told(listing(10, "a"), stream(lines(*changes)))
    assert words == ["all: a", "now: b 11", "now: a 12", "gone: b 13"]
    assert from_version(requests) == ["list", "10"]


def test_a_line_in_pieces_is_one_change() -> None:
    data = lines(event("ADDED", "ä", 11), event("ADDED", "b", 12))
    words, _, _ = told(listing(10), stream(*(data[at : at + 1] for at in range(len(data)))))
    assert words == ["all: ", "now: ä 11", "now: b 12"]


def test_a_connection_cut_in_the_middle_of_a_line_loses_and_repeats_nothing() -> None:
    first, second = lines(event("ADDED", "a", 11)), lines(event("ADDED", "b", 12))
    words, requests, _ = told(listing(10), stream(first + second[:9], cut=True), stream(second))
    assert words == ["all: ", "now: a 11", "now: b 12"]
    assert from_version(requests) == ["list", "10", "11"]


def test_a_bookmark_is_no_change_but_where_the_next_watch_begins() -> None:
    words, requests, _ = told(listing(10), stream(lines(event("BOOKMARK", "", 15))), stream())
    assert words == ["all: "]
    assert from_version(requests) == ["list", "10", "15"]
    assert {request.query.get("allowWatchBookmarks") for request in requests[1:]} == {"True"}


@pytest.mark.parametrize(
    "expired",
    [refuse(410), stream(lines(error(410, reason="Expired")))],
    ids=["as the answer", "in the stream"],
)
def test_a_version_that_is_too_old_leads_to_a_new_list(expired: Answer) -> None:
    words, requests, _ = told(
        listing(10, "a"), stream(lines(event("ADDED", "b", 11))), expired, listing(20, "b"), stream()
    )
    assert words == ["all: a", "now: b 11", "all: b"]
    assert from_version(requests) == ["list", "10", "11", "list", "20"]


@pytest.mark.parametrize(
    "failure",
    [
        refuse(500),
        refuse(503),
        refuse(429),
        stream(lines(error(500, reason="InternalError"))),
        stream(cut=True),
        say("<html>"),
    ],
    ids=["500", "503", "429", "an error in the stream", "no more than headers", "a page without a line"],
)
def test_a_failure_of_the_server_s_is_waited_out_from_where_it_was(failure: Answer) -> None:
    words, requests, _ = told(
        listing(10), stream(lines(event("ADDED", "a", 11))), failure, failure, stream(lines(event("ADDED", "b", 12)))
    )
    assert words == ["all: ", "now: a 11", "now: b 12"]
    assert from_version(requests) == ["list", "10", "11", "11", "11"]


@pytest.mark.parametrize(
    "page",
    [say("<html>\n"), stream(lines(error(500))), stream(lines({"type": "ADDED"}))],
    ids=["text", "an error without a reason", "an event without an object"],
)
def test_an_answer_that_is_not_the_api_server_s_leads_to_a_new_list(page: Answer) -> None:
    words, _, _ = told(listing(10), page, listing(20, "a"), stream())
    assert words == ["all: ", "all: a"]


def test_a_list_that_fails_is_asked_for_again() -> None:
    words, _, _ = told(refuse(500), stream(b'{"metadata"', cut=True), say("<html>"), listing(10, "a"), stream())
    assert words == ["all: a"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_that_lasts_ends_the_following_and_is_told(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfp_finetune.cluster.watching.REFUSAL_SECONDS", 0)
    stop, events = Stop(), Queue()
    with serving(in_order([listing(10), refuse(status)])) as (_, api):
        follow("pod", partial(client.CoreV1Api(api).list_namespaced_pod, "here"), events, stop)
    assert in_words(events.get_nowait()) == "all: "
    broken = events.get_nowait()
    assert isinstance(broken, Broken) and (broken.kind, broken.error.status) == ("pod", status)


def test_a_refusal_that_passes_costs_nothing() -> None:
    words, _, _ = told(refuse(403), listing(10, "a"), refuse(401), stream(lines(event("MODIFIED", "a", 11))))
    assert words == ["all: a", "now: a 11"]


def test_a_server_that_ends_every_watch_at_once_is_asked_more_and_more_rarely() -> None:
    change = stream(lines(event("ADDED", "a", 11)))
    *pauses, _ = told(listing(10), *[stream()] * 7, change, stream(), stream())[2].pauses
    longest = [0, 0.5, 1, 2, 4, 8, 10, 10, 0, 0.5]
    assert LONGEST_PAUSE == 10
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
