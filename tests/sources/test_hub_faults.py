"""A Hub, a network or a disk that fails: a whole directory or none, and a message that says whose fault it is."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import pytest
from children import killed_at, small_volume
from servers import faults
from servers.certificates import write_certificate
from servers.hub import Hub, serve

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.sources import arrival, retries

ROWS = '{"input": "a", "output": "b"}\n'
FILES = {"small.jsonl": ROWS, "large.jsonl": "".join(f'{{"input": "{number}"}}\n' for number in range(20_000))}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "PART_BYTES", 50_000)


def entries(workspace: Path) -> list[str]:
    """Everything below datasets/ but lock files."""
    return sorted(path.name for path in (workspace / "datasets").glob("*") if path.suffix != ".lock")


def assert_whole(workspace: Path, manifest: Manifest) -> None:
    assert entries(workspace) == [manifest.key]
    for name, content in FILES.items():
        assert (workspace / manifest.path / name).read_text() == content
    assert len(list((workspace / manifest.path).rglob("*"))) == len(manifest.files) + 1


PASSING = {
    "429 with Retry-After": faults.times(2, faults.answer(429, Retry_After="1")),
    "429 of the API": faults.times(1, faults.answer(429, Retry_After="1"), lambda path: "/api/" in path),
    "500": faults.times(3, faults.answer(500)),
    "503 of the API": faults.times(3, faults.answer(503), lambda path: "/api/" in path),
    "reset": faults.times(3, faults.reset),
    "cut": faults.times(3, faults.cut),
    "a login page": faults.times(3, faults.page),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_is_overcome(hub: Hub, tmp_path: Path, fault: faults.Fault) -> None:
    hub.add("dataset", "org/rows", FILES)
    hub.fault = fault
    assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))


def test_a_connection_on_which_nothing_comes_is_given_up_and_tried_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retries, "STALL_SECONDS", 0.5)
    hub.add("dataset", "org/rows", FILES)
    over = threading.Event()
    hub.fault = faults.times(2, faults.stall(over))
    try:
        assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))
    finally:
        over.set()
    assert capfd.readouterr().out.count("ReadTimeout") >= 2


def test_the_pause_that_a_server_asks_for_is_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    answers = iter([retries.Transient("busy", 7.0), retries.Transient("busy", 1e9), None])

    def call() -> str:
        if error := next(answers):
            raise error
        return "done"

    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 300.0)
    assert retries.patiently("dataset", "hf://org/rows", call, pauses.append) == "done"
    assert pauses == [7.0, 300.0]


LASTING = {
    "500": (faults.times(10**6, faults.answer(500)), "the network or the server: the server answered 500"),
    "reset": (faults.times(10**6, faults.reset), "the network or the server: "),
    "a login page": (faults.times(10**6, faults.page), "the network or the server: "),
}


@pytest.mark.parametrize(("fault", "message"), LASTING.values(), ids=LASTING.keys())
def test_a_fault_that_lasts_is_said_and_the_next_attempt_goes_on_from_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: faults.Fault, message: str
) -> None:
    monkeypatch.setattr("kfp_finetune.sources.download.WORKERS", 1)  # one part after the other
    hub.add("dataset", "org/rows", FILES)
    served = []

    def after_a_while(handler: object, request: object) -> bool:
        served.append(request)
        return len(served) > 12 and fault(handler, request)

    hub.fault = after_a_while
    with pytest.raises(UserError, match=message):
        initialize_dataset("org/rows", str(tmp_path))
    assert [name.startswith(".part-") for name in entries(tmp_path)] == [True]
    hub.fault = None
    hub.requests.clear()
    assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))
    parts = -(-len(FILES["large.jsonl"]) // 50_000)
    assert len([path for path in hub.bodies() if path.startswith("/storage/")]) < parts


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_expires_during_the_download_costs_nothing_of_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("kfp_finetune.sources.download.WORKERS", 1)  # one part after the other
    hub.add("dataset", "org/rows", FILES)
    hub.fault = lambda handler, request: len(hub.bodies()) > 8 and faults.answer(status)(handler, request)
    with pytest.raises(UserError, match="HF_TOKEN"):
        initialize_dataset("org/rows", str(tmp_path))
    assert [name.startswith(".part-") for name in entries(tmp_path)] == [True]
    hub.fault = None
    hub.requests.clear()
    assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))
    parts = -(-len(FILES["large.jsonl"]) // 50_000)
    assert len([path for path in hub.bodies() if path.startswith("/storage/")]) < parts


@pytest.mark.parametrize("files", [{"large.jsonl": FILES["large.jsonl"]}, {f"{n}.jsonl": ROWS for n in range(9)}])
def test_several_files_or_parts_of_one_come_at_once(hub: Hub, tmp_path: Path, files: dict[str, str]) -> None:
    hub.add("dataset", "org/rows", files)
    barrier = threading.Barrier(4, timeout=60)
    hub.fault = faults.times(4, faults.together(barrier))
    manifest = initialize_dataset("org/rows", str(tmp_path))
    assert not barrier.broken
    assert all((tmp_path / manifest.path / name).read_text() == content for name, content in files.items())


def test_half_a_report_of_a_killed_step_does_not_spoil_the_download(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", FILES)
    manifest = initialize_dataset("org/rows", str(tmp_path))
    staging = (tmp_path / manifest.path).rename(tmp_path / "datasets" / f".part-{manifest.key}")
    for name in (".report.html", "MANIFEST.json"):
        (staging / name).write_text("")
    hub.requests.clear()
    assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))
    assert hub.bodies() == []


def test_a_server_that_knows_no_parts_is_said(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", FILES)
    hub.knows_ranges = False
    with pytest.raises(UserError, match="the server did not send the part that was asked for"):
        initialize_dataset("org/rows", str(tmp_path))


def test_a_body_that_was_damaged_once_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", FILES)
    damaged = []

    def corrupt(path: str, start: int, body: bytes) -> bytes:
        damaged.append((path, start))
        return b"x" + body[1:] if damaged.count((path, start)) == 1 and start in (0, 50_000) else body

    hub.corrupt = corrupt
    assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))


def test_a_body_that_stays_damaged_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", FILES)
    hub.corrupt = lambda path, start, body: b"x" + body[1:] if path == "small.jsonl" else body
    with pytest.raises(UserError, match=r"small\.jsonl damaged 3 times"):
        initialize_dataset("org/rows", str(tmp_path))
    assert [name.startswith(".part-") for name in entries(tmp_path)] == [True]


def private(hub: Hub) -> None:
    hub.repositories["dataset", "org/rows"].token = "other"


def gated(hub: Hub) -> None:
    hub.repositories["dataset", "org/rows"].gated = True
    private(hub)


REFUSED: dict[str, tuple[str, str, Callable[[Hub], None], list[str]]] = {
    "401": ("org/rows", "bad", lambda hub: None, ["may not be read with the token that was given", "HF_TOKEN"]),
    "private": ("org/rows", "", private, ["no dataset on", "or a private one; asked with no token", "Check the name"]),
    "private with a token": ("org/rows", "good", private, ["asked with the token that was given"]),
    "gated": ("org/rows", "good", gated, ["gated", "Accept them on the page of org/rows"]),
    "gated without a token": ("org/rows", "", gated, ["gated", "no token, since HF_TOKEN is not set"]),
    "no repository": ("org/none", "", lambda hub: None, ["no dataset on", "Check the name for a typo"]),
    "no revision": ("org/rows@v9", "", lambda hub: None, ["no such revision"]),
    "no commit": (f"org/rows@{'0' * 40}", "", lambda hub: None, ["no such revision"]),
    "no file": ("hf://org/rows/none.jsonl", "", lambda hub: None, ["has no none.jsonl"]),
    "revision at the end": ("hf://org/rows/small.jsonl@main", "", lambda hub: None, ["NAME@REVISION/FOLDER"]),
}


@pytest.mark.parametrize(("uri", "token", "prepare", "messages"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_hub_refuses_is_said_once_and_is_the_name_the_token_or_the_gate(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    uri: str,
    token: str,
    prepare: Callable[[Hub], None],
    messages: list[str],
) -> None:
    hub.add("dataset", "org/rows", FILES)
    prepare(hub)
    if token:
        monkeypatch.setenv("HF_TOKEN", f"{token}-secret")
    with pytest.raises(UserError) as caught:
        initialize_dataset(uri, str(tmp_path))
    assert len(caught.value.problems) == 1
    for message in messages:
        assert message in str(caught.value)
    assert entries(tmp_path) == []
    output = "".join(capfd.readouterr())
    assert "attempt" not in output
    assert not token or f"{token}-secret" not in output + str(caught.value)


ODD: dict[str, tuple[faults.Fault, str]] = {
    "a circle": (faults.circle, "sends the request in circles"),
    "a list": (faults.say(b"[]"), "no answer of a Hub"),
    "a number": (faults.say(b"1"), "no answer of a Hub"),
    "an object without a name": (faults.say(b"{}"), "no answer of a Hub"),
    "not what its encoding says": (faults.say(b"{}", Content_Encoding="gzip"), "the network or the server: Decoding"),
}


@pytest.mark.parametrize(("fault", "message"), ODD.values(), ids=ODD.keys())
def test_an_answer_that_no_hub_gives_is_said(hub: Hub, tmp_path: Path, fault: faults.Fault, message: str) -> None:
    hub.add("dataset", "org/rows", FILES)
    hub.fault = fault
    with pytest.raises(UserError, match=message):
        initialize_dataset("org/rows", str(tmp_path))


@pytest.mark.parametrize("endpoint", ["hub.example.com", "ftp://hub.example.com", "http://hub:port", "http://[::1"])
def test_an_endpoint_that_is_no_url_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UserError, match=r"(?s)HF_ENDPOINT=.*Correct HF_ENDPOINT"):
        initialize_dataset("org/rows", str(tmp_path))


def test_a_server_that_is_not_there_is_the_network_and_a_proxy_s_password_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", "http://user:pa55word@127.0.0.1:9")
    huggingface_hub.close_session()
    with pytest.raises(UserError, match="because of the network or the server") as caught:
        initialize_dataset("org/rows", str(tmp_path))
    assert "pa55word" not in str(caught.value) + "".join(capfd.readouterr())


def test_a_proxy_is_used(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("dataset", "org/rows", FILES)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    huggingface_hub.close_session()
    assert_whole(tmp_path, initialize_dataset("org/rows", str(tmp_path)))


@pytest.fixture(autouse=True)
def fresh_session() -> Iterator[None]:
    """The next test's client reads the next test's environment."""
    yield
    huggingface_hub.close_session()


def test_a_private_authority_is_trusted_if_it_is_named_and_else_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path)
    with serve(certificate) as hub:
        hub.add("dataset", "org/rows", FILES)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(UserError, match=r"(?s)not trusted: .*SSL_CERT_FILE"):
            initialize_dataset("org/rows", str(tmp_path / "workspace"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        huggingface_hub.close_session()
        assert_whole(tmp_path / "workspace", initialize_dataset("org/rows", str(tmp_path / "workspace")))


def test_a_branch_that_moves_during_the_download_changes_nothing(hub: Hub, tmp_path: Path) -> None:
    first = hub.add("dataset", "org/rows", FILES)

    def move(handler: object, request: object) -> bool:
        if len(hub.bodies()) == 1:
            hub.add("dataset", "org/rows", {name: content * 2 for name, content in FILES.items()})
        return False

    hub.fault = move
    manifest = initialize_dataset("org/rows", str(tmp_path))
    assert manifest.revision == first
    assert_whole(tmp_path, manifest)


def test_a_commit_that_vanishes_during_the_download_is_said(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", FILES)
    hub.fault = lambda handler, request: faults.is_body(request.path) and hub.repositories.clear()
    with pytest.raises(UserError, match="which is no dataset on"):
        initialize_dataset("org/rows", str(tmp_path))
    assert entries(tmp_path) == []


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of two megabytes."""
    with small_volume(tmp_path / "volume", "2m") as directory:
        yield directory


def test_what_does_not_fit_is_refused_before_a_byte_is_fetched(hub: Hub, volume: Path) -> None:
    hub.add("dataset", "org/rows", {"large.jsonl": ROWS * 100_000})
    with pytest.raises(UserError, match=r"bytes free, where org/rows needs 3,000,000 more"):
        initialize_dataset("org/rows", str(volume))
    assert hub.bodies() == [] and entries(volume) == []


def test_a_disk_that_fills_up_meanwhile_is_the_disk_and_leaves_nothing(hub: Hub, volume: Path) -> None:
    hub.add("dataset", "org/rows", {"large.jsonl": ROWS * 50_000})

    def fill(handler: object, request: object) -> bool:
        if faults.is_body(request.path):
            with suppress(OSError):
                (volume / "filler").write_bytes(b"x" * 2_000_000)
        return False

    hub.fault = fill
    with pytest.raises(UserError, match="No space left on device while fetching org/rows"):
        initialize_dataset("org/rows", str(volume))
    assert entries(volume) == []


def test_killed_at_twenty_random_moments_it_leaves_all_or_nothing_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("dataset", "org/rows", FILES)
    uri = f"org/rows@{commit}"
    moments = random.Random(7).sample(range(120), 20)
    kills = resumed = 0
    for moment in moments:
        root = tmp_path / str(moment)
        kills += killed_at(moment, lambda root=root: initialize_dataset(uri, str(root)))
        for entry in entries(root):
            if not entry.startswith("."):
                assert_whole(root, Manifest.from_json((root / "datasets" / entry / "MANIFEST.json").read_text()))
        hub.requests.clear()
        assert_whole(root, initialize_dataset(uri, str(root)))
        resumed += len(hub.bodies()) < 2 + 2 * (len(FILES["large.jsonl"]) // 50_000)
    assert kills >= 15 and resumed >= 5


WRITER = """
import sys
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
print(initialize_dataset("org/rows", sys.argv[1]).key)
"""


def test_of_two_processes_that_want_the_same_one_fetches_it(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", FILES)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second,
    ):
        said = [process.communicate()[0].splitlines()[-1] for process in (first, second)]
    assert said[0] == said[1] and entries(tmp_path) == [said[0]]
    assert len(hub.bodies()) == len(["small.jsonl", "large.jsonl", "large.jsonl in the storage"])


HOSTILE = {
    "above": ["../x.jsonl"],
    "deep above": ["a/../../x.jsonl"],
    "absolute": ["/etc/x.jsonl"],
    "backslash": ["a\\x.jsonl"],
    "dot": ["./x.jsonl"],
    "empty part": ["a//x.jsonl"],
    "long": ["x" * 300 + ".jsonl"],
    "long path": ["/".join(["x" * 200] * 6) + ".jsonl"],
    "line end": ["a\nb.jsonl"],
    "file and folder": ["a.jsonl", "a.jsonl/b.jsonl"],
}


@pytest.mark.parametrize("names", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(
    hub: Hub, tmp_path: Path, names: list[str]
) -> None:
    hub.add("dataset", "org/rows", dict.fromkeys(names, ROWS))
    with pytest.raises(UserError, match="with a file named"):
        initialize_dataset("org/rows", str(tmp_path / "workspace"))
    assert hub.bodies() == []
    assert entries(tmp_path / "workspace") == [] and [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_what_git_keeps_of_a_link_is_a_plain_file(hub: Hub, tmp_path: Path) -> None:
    hub.add("dataset", "org/rows", {"link.txt": "../../../etc/passwd"})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    assert not (tmp_path / manifest.path / "link.txt").is_symlink()
    assert (tmp_path / manifest.path / "link.txt").read_text() == "../../../etc/passwd"


def test_a_table_with_one_huge_cell_and_formulas_is_only_text(hub: Hub, tmp_path: Path) -> None:
    cell = "=cmd|'/C calc'!A0" + "x" * 3_000_000
    hub.add("dataset", "org/rows", {"a.csv": f'input,output\n"{cell}","b"\n'})
    manifest = initialize_dataset("org/rows", str(tmp_path))
    assert manifest.facts["rows"] == 1
    assert (tmp_path / manifest.path / ".report.html").stat().st_size < 100_000
