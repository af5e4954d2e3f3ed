"""An export on the Hub: one commit or none, private, resumed, with nothing of an older model beside it."""

import hashlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import hf_xet
import pytest
from components.export_model.conftest import Export, Write
from servers import faults, hub
from servers.hub_writes import Account, WritableHandler, WritableHub

from kfp_finetune.components.export_model.publish.layout import lay_out
from kfp_finetune.components.export_model.publish.run import check_access, publish
from kfp_finetune.components.export_model.publish.targets import Published, parse_targets
from kfp_finetune.errors import StepError, UserError
from kfp_finetune.manifests import Manifest

NAME = "org/tuned"
ADDRESS = f"hf://{NAME}"
FILES = {
    "model.safetensors", "config.json", "tokenizer.json", "vocab_1.txt", "README.md", "MANIFEST.json",
    "adapter/adapter_model.safetensors", "adapter/adapter_config.json", ".gitattributes",
}  # fmt: skip


@pytest.fixture
def writable(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A Hub at HF_ENDPOINT, where the token in HF_TOKEN may write below org; large files go by git-lfs."""
    accounts = {
        "hf-writes": Account("me", ("org",)),
        "hf-reads": Account("me", ("org",), role="read"),
        "hf-stranger": Account("you"),
    }
    with hub.serve(hub=WritableHub(accounts=accounts), answers=WritableHandler) as server:
        assert isinstance(server, WritableHub)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf-writes")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield server


def put(export: Export, address: str = ADDRESS) -> Published:
    (published,) = publish(*export, parse_targets(address))
    return published


def is_write(path: str) -> bool:
    return any(part in path for part in ("/create", "/commit/", "/preupload/", "/branch/", "/upload/", "/batch"))


def test_a_repository_is_made_private_and_gets_one_commit(writable: WritableHub, write_export: Write) -> None:
    directory, manifest = write_export()
    published = put((directory, manifest))
    there = writable.files(NAME)
    assert there.keys() == FILES and writable.private == {NAME} and writable.messages == ["Export abc"]
    assert there["model.safetensors"] == (directory / "merged/model.safetensors").read_bytes()
    assert there["README.md"] == (directory / "README.md").read_bytes()
    assert published == Published(
        ADDRESS, f"{writable.url}/{NAME}/tree/{published.revision}", writable.repositories["model", NAME].sha(1)
    )
    listed = {file.path: file for file in Manifest.from_json(there["MANIFEST.json"].decode()).files}
    assert listed.keys() == FILES - {"MANIFEST.json", ".gitattributes"}
    assert listed["model.safetensors"].sha256 == hashlib.sha256(there["model.safetensors"]).hexdigest()
    assert not any(b"secret" in content for content in there.values())


def test_publishing_again_makes_no_commit_and_sends_nothing(writable: WritableHub, write_export: Write) -> None:
    export = write_export()
    first = put(export)
    writable.requests.clear()
    assert put(export) == first
    assert len(writable.messages) == 1 and not [each.path for each in writable.requests if is_write(each.path)]


def test_a_newer_export_replaces_the_older_one_in_one_commit_and_leaves_what_is_not_its_own(
    writable: WritableHub, write_export: Write
) -> None:
    writable.add("model", NAME, {"LICENSE": "mine", "notes/a.json": "{}", "pytorch_model.bin": "old", "logo.png": "x"})
    put(write_export("old", seed=1, shards=3))
    assert "pytorch_model.bin" not in writable.files(NAME) and "model-2-of-3.safetensors" in writable.files(NAME)
    writable.bodies_sent.clear()
    new = write_export("new", seed=2, adapter=False)
    put(new)
    assert writable.files(NAME).keys() == {
        "model.safetensors", "config.json", "tokenizer.json", "vocab_2.txt", "README.md", "MANIFEST.json",
        "LICENSE", "notes/a.json", "logo.png",
    }  # fmt: skip
    assert writable.messages == ["Export old", "Export new"] and writable.private == set()
    assert len(writable.bodies_sent) == 2, "the weights and the manifest"


def test_a_branch_is_made_and_the_others_stay(writable: WritableHub, write_export: Write) -> None:
    put(write_export("first", seed=1))
    main = dict(writable.files(NAME))
    put(write_export("second", seed=2), f"{ADDRESS}@try%2Fone")
    assert writable.files(NAME) == main
    assert writable.files(NAME, "try/one")["README.md"] == b"---\nlicense: mit\n---\n\n# Model 2\n"
    assert len(writable.messages) == 2
    put(write_export("third", seed=3), f"{ADDRESS}@try%2Fone")
    assert writable.files(NAME) == main and "vocab_3.txt" in writable.files(NAME, "try/one")


def test_a_new_repository_can_begin_with_a_branch(writable: WritableHub, write_export: Write) -> None:
    put(write_export(), f"{ADDRESS}@v1")
    assert writable.files(NAME, "v1").keys() == FILES and writable.files(NAME).keys() == {".gitattributes"}


def test_a_publication_that_is_killed_changes_nothing_and_is_taken_up(
    writable: WritableHub, write_export: Write
) -> None:
    put(write_export("old", seed=1))
    before = dict(writable.files(NAME))
    new = write_export("new", seed=2, shards=3)
    writable.bodies_sent.clear()
    child = os.fork()
    if child == 0:
        try:
            import huggingface_hub.hf_api

            kill = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            huggingface_hub.hf_api.HfApi.create_commit = kill
            put(new)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert writable.files(NAME) == before
    sent = len(writable.bodies_sent)
    assert sent == 5, "three shards, the adapter and the manifest had come"
    put(new)
    assert len(writable.bodies_sent) == sent, "nothing that had come is sent again"
    assert "model-2-of-3.safetensors" in writable.files(NAME) and "model.safetensors" not in writable.files(NAME)


def test_a_storage_that_refuses_once_is_asked_again_with_a_new_address(
    writable: WritableHub, write_export: Write
) -> None:
    writable.fault = faults.times(1, faults.answer(403), lambda path: "/upload/" in path)
    put(write_export())
    assert writable.files(NAME).keys() == FILES and len(writable.messages) == 1


def test_a_storage_that_goes_on_failing_is_told_and_nothing_is_half_done(
    writable: WritableHub, write_export: Write
) -> None:
    writable.fault = faults.times(10**6, faults.answer(403), lambda path: "/upload/" in path)
    with pytest.raises(UserError, match="the Hub's storage answered 403") as caught:
        put(write_export())
    assert "secret-signature" not in str(caught.value)
    assert writable.files(NAME).keys() == {".gitattributes"}
    writable.fault = None
    put(write_export("abc", seed=2))
    assert len(writable.messages) == 1


def test_a_commit_whose_answer_is_lost_is_not_made_twice(writable: WritableHub, write_export: Write) -> None:
    writable.lost_answers = 1
    published = put(write_export())
    assert writable.messages == ["Export abc"] and published.revision == writable.repositories["model", NAME].sha(1)


def test_a_commit_of_somebody_else_meanwhile_is_looked_at_first(writable: WritableHub, write_export: Write) -> None:
    put(write_export())

    def interfere(handler: hub.BaseHTTPRequestHandler, request: hub.Request) -> bool:
        if "/commit/" in request.path:
            writable.fault = None
            writable.add("model", NAME, {**writable.files(NAME), "NOTES.md": "theirs", "model-1-of-9.safetensors": "x"})
        return False

    writable.fault = interfere
    put(write_export("new", seed=2))
    there = writable.files(NAME)
    assert there["NOTES.md"] == b"theirs" and "vocab_2.txt" in there and "model-1-of-9.safetensors" not in there


def test_a_file_that_is_not_what_the_manifest_says_is_not_published(writable: WritableHub, write_export: Write) -> None:
    directory, manifest = write_export()
    weights = directory / "merged/model.safetensors"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    with pytest.raises(StepError, match="not what the export's manifest says"):
        put((directory, manifest))
    assert writable.messages == []


def test_a_repository_that_leaves_files_out_is_told(writable: WritableHub, write_export: Write) -> None:
    writable.ignored = frozenset({"tokenizer.json"})
    with pytest.raises(UserError, match=r"lacks tokenizer\.json"):
        put(write_export())


@pytest.mark.parametrize(
    ("token", "address", "complaint"),
    [
        ("", ADDRESS, "HF_TOKEN is not set"),
        ("unknown-token", ADDRESS, "does not know the token"),
        ("hf-reads", ADDRESS, "may not write|may only read"),
        ("hf-stranger", ADDRESS, "may not write|a repository below you"),
        ("hf-reads", "hf://org/there", "may not write"),
        ("hf-stranger", "hf://org/there", "may not write"),
    ],
)
def test_a_token_that_may_not_write_is_told_before_and_after(
    writable: WritableHub,
    write_export: Write,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    address: str,
    complaint: str,
) -> None:
    writable.add("model", "org/there", {"README.md": "there"})
    monkeypatch.setenv("HF_TOKEN", token)
    (problem,) = check_access(parse_targets(address))
    with pytest.raises(UserError, match=complaint) as caught:
        put(write_export(), address)

    assert re.search(complaint, str(problem)) and "HF_TOKEN" in str(problem) and "HF_TOKEN" in str(caught.value)
    assert not token or f" {token} " not in str(caught.value).replace("hf-stranger", "")
    assert writable.messages == [] and writable.files("org/there") == {"README.md": b"there"}


def test_checking_access_writes_nothing(writable: WritableHub) -> None:
    writable.add("model", "org/there", {"README.md": "there"})
    assert check_access(parse_targets(f"{ADDRESS} hf://org/there hf://me/new")) == []
    assert not [each.path for each in writable.requests if is_write(each.path)]


def test_large_files_go_to_the_store_of_chunks_where_there_is_one(
    writable: WritableHub, write_export: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    writable.xet_url = f"local://{tmp_path}/store"
    directory, manifest = write_export(size=300_000)
    (tmp_path / "manifest").write_bytes(bytes(lay_out(directory, manifest).manifest.source))
    paths = [str(path) for path in (*directory.rglob("*.safetensors"), tmp_path / "manifest")]
    for path, pointer in zip(paths, hf_xet.hash_files(paths), strict=True):
        writable.xet_hashes[hashlib.sha256(Path(path).read_bytes()).hexdigest()] = pointer.hash
    published = put((directory, manifest))
    assert writable.files(NAME)["model.safetensors"] == (directory / "merged/model.safetensors").read_bytes()
    assert writable.bodies_sent == [] and len(writable.messages) == 1
    tokens = [each for each in writable.requests if "xet-write-token" in each.path]
    assert tokens and {each.headers["authorization"] for each in tokens} == {"Bearer hf-writes"}
    assert put((directory, manifest)) == published and len(writable.messages) == 1


def test_a_store_of_chunks_that_fails_is_left_and_files_go_by_http(
    writable: WritableHub, write_export: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    writable.fault = faults.times(100, faults.answer(404), lambda path: "xet-write-token" in path)
    put(write_export())
    assert writable.files(NAME).keys() == FILES and len(writable.bodies_sent) == 3
