"""An export in a bucket of a real server: whole or without a manifest, written once, readable as a model."""

import json
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from components.export_model.conftest import Export, Write
from servers import faults
from servers.proxy import Proxy, serve
from servers.s3 import S3

from kfp_finetune.components.export_model.publish import s3 as publishing
from kfp_finetune.components.export_model.publish.run import check_access, publish
from kfp_finetune.components.export_model.publish.targets import Published, parse_targets
from kfp_finetune.errors import StepError, UserError
from kfp_finetune.manifests import Manifest
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source

FILES = {
    "model.safetensors", "config.json", "tokenizer.json", "vocab_1.txt", "README.md", "MANIFEST.json",
    "adapter/adapter_model.safetensors", "adapter/adapter_config.json",
}  # fmt: skip


@pytest.fixture
def bucket(s3: S3) -> str:
    """An empty bucket."""
    name = f"tests-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, at the endpoint, that can fail."""
    with serve(s3.url) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the least size that S3 takes."""
    monkeypatch.setattr(publishing, "PART_BYTES", 5 * 2**20)


def answer(status: int) -> faults.Fault:
    """Takes a request whole, and answers with a status."""
    given = faults.answer(status)

    def fault(handler: BaseHTTPRequestHandler, request: Any) -> bool:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        return given(handler, request)

    return fault


def put(bucket: str, export: Export, prefix: str = "models/one") -> Published:
    (published,) = publish(*export, parse_targets(f"s3://{bucket}/{prefix}"))
    return published


def keys(s3: S3, bucket: str) -> dict[str, tuple[str, object]]:
    """Each object's ETag and the time at which it was written."""
    found = s3.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"]: (entry["ETag"], entry["LastModified"]) for entry in found}


def read(s3: S3, bucket: str, key: str) -> bytes:
    return s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()


def test_an_export_lies_in_a_folder_of_its_own_with_a_manifest(s3: S3, bucket: str, write_export: Write) -> None:
    directory, manifest = write_export("abc")
    published = put(bucket, (directory, manifest))
    assert published.url == f"s3://{bucket}/models/one/abc"
    assert set(keys(s3, bucket)) == {f"models/one/abc/{name}" for name in FILES} | {"models/one/LATEST"}
    assert read(s3, bucket, "models/one/LATEST").decode() == f"{published.url}\n"
    there = Manifest.from_json(read(s3, bucket, "models/one/abc/MANIFEST.json").decode())
    assert {file.path for file in there.files} == FILES - {"MANIFEST.json"}
    assert "secret" not in there.to_json() and there.facts["parameters"] == 7
    assert read(s3, bucket, "models/one/abc/model.safetensors") == (directory / "merged/model.safetensors").read_bytes()


def test_publishing_again_writes_nothing(s3: S3, bucket: str, write_export: Write) -> None:
    export = write_export()
    first = put(bucket, export)
    before = keys(s3, bucket)
    assert put(bucket, export) == first
    assert keys(s3, bucket) == before


def test_a_large_file_goes_in_parts_with_checksums_that_the_sources_verify(
    s3: S3, bucket: str, write_export: Write, tmp_path: Path, small_parts: None
) -> None:
    directory, manifest = write_export(size=11 * 2**20)
    url = put(bucket, (directory, manifest)).url
    (tmp_path / "fetched").mkdir()
    source = open_source("model", url, Patterns(allow=("*",), ignore=()))
    files = {file.path: file.verified for file in source.fetch(tmp_path / "fetched", lambda done, total: None)}
    assert files["model.safetensors"] == "sha256 of parts"
    assert (tmp_path / "fetched/model.safetensors").read_bytes() == (
        directory / "merged/model.safetensors"
    ).read_bytes()


def test_a_new_export_leaves_the_older_one_as_it_is(s3: S3, bucket: str, write_export: Write) -> None:
    put(bucket, write_export("old", seed=1))
    before = keys(s3, bucket)
    new = put(bucket, write_export("new", seed=2, shards=3))
    after = keys(s3, bucket)
    old = {key for key in before if "/old/" in key}
    assert {key: after[key] for key in old} == {key: before[key] for key in old}
    assert read(s3, bucket, "models/one/LATEST").decode().strip() == new.url


def test_an_export_that_was_built_anew_replaces_its_files_and_takes_its_manifest_away_first(
    s3: S3, bucket: str, proxy: Proxy, write_export: Write
) -> None:
    put(bucket, write_export("abc", seed=1, shards=3))
    proxy.requests.clear()
    put(bucket, write_export("abc", seed=2, adapter=False))
    there = {key.removeprefix("models/one/abc/") for key in keys(s3, bucket)} - {"models/one/LATEST"}
    assert there == {"model.safetensors", "config.json", "tokenizer.json", "vocab_2.txt", "README.md", "MANIFEST.json"}
    changes = [(each.method, each.path) for each in proxy.requests if each.method in ("PUT", "DELETE")]
    assert changes[0] == ("DELETE", f"/{bucket}/models/one/abc/MANIFEST.json")
    assert changes[-1] == ("PUT", f"/{bucket}/models/one/abc/MANIFEST.json")
    assert [path for method, path in changes if "tokenizer.json" in path] == [], "it was there already"


def test_a_killed_upload_leaves_no_manifest_and_the_next_one_takes_over_what_is_whole(
    s3: S3, bucket: str, proxy: Proxy, write_export: Write, small_parts: None
) -> None:
    export = write_export(size=11 * 2**20)
    proxy.fault = lambda handler, request: (
        "partNumber=3" in request.path and "adapter" not in request.path and answer(403)(handler, request)
    )
    with pytest.raises(UserError, match="may not be written"):
        put(bucket, export)
    there = {key.removeprefix("models/one/abc/") for key in keys(s3, bucket)}
    assert "MANIFEST.json" not in there and "model.safetensors" not in there and "config.json" in there
    assert "models/one/LATEST" not in keys(s3, bucket)
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads"), "nothing is kept that is paid for"
    proxy.fault, sent = None, len(proxy.requests)
    put(bucket, export)
    assert {key.removeprefix("models/one/abc/") for key in keys(s3, bucket)} >= FILES
    written = [each.path for each in proxy.requests[sent:] if each.method == "PUT"]
    assert not [path for path in written if "config.json" in path]


def test_what_a_kill_left_behind_is_freed(s3: S3, bucket: str, write_export: Write) -> None:
    s3.client().create_multipart_upload(Bucket=bucket, Key="models/one/abc/model.safetensors")
    put(bucket, write_export())
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("size", [3000, 11 * 2**20])
def test_a_file_that_is_not_what_the_manifest_says_is_not_published(
    s3: S3, bucket: str, write_export: Write, small_parts: None, size: int
) -> None:
    directory, manifest = write_export(size=size)
    weights = directory / "merged/model.safetensors"
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    with pytest.raises(StepError, match="not what the export's manifest says"):
        put(bucket, (directory, manifest))
    weights.write_bytes(b"short")
    with pytest.raises(StepError, match=r"merged/model\.safetensors"):
        put(bucket, (directory, manifest))
    there = keys(s3, bucket)
    assert "models/one/abc/model.safetensors" not in there and "models/one/abc/MANIFEST.json" not in there


def test_a_passing_fault_is_overcome(s3: S3, bucket: str, proxy: Proxy, write_export: Write, small_parts: None) -> None:
    proxy.fault = faults.times(2, answer(503), lambda path: "partNumber=2" in path)
    put(bucket, write_export(size=11 * 2**20))
    assert {key.removeprefix("models/one/abc/") for key in keys(s3, bucket)} >= FILES


def test_a_lost_answer_to_the_last_request_of_a_large_file_is_no_failure(
    s3: S3, bucket: str, proxy: Proxy, write_export: Write, small_parts: None
) -> None:
    export = write_export(size=11 * 2**20)
    lost: list[str] = []

    def lose(path: str, body: bytes) -> bytes:
        if b"<CompleteMultipartUploadResult" in body and not lost:
            lost.append(path)
            raise ConnectionAbortedError
        return body

    def forget(handler: BaseHTTPRequestHandler, request: Any) -> bool:
        """Answers as servers do that do not remember an upload that they have ended."""
        if not lost or request.method != "POST" or request.path != lost[0]:
            return False
        handler.rfile.read(int(handler.headers["Content-Length"]))
        body = b"<Error><Code>NoSuchUpload</Code></Error>"
        handler.send_response(404)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    proxy.change, proxy.fault = lose, forget
    put(bucket, export)
    assert lost and {key.removeprefix("models/one/abc/") for key in keys(s3, bucket)} >= FILES


def test_access_is_checked_before_there_is_an_export(
    s3: S3, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = parse_targets(f"s3://{bucket}/models")
    assert check_access(targets) == []
    assert keys(s3, bucket) == {} and not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    (absent,) = check_access(parse_targets("s3://no-such-bucket-here/x"))
    assert "no bucket no-such-bucket-here" in str(absent)
    proxy.fault = lambda handler, request: request.method == "POST" and answer(403)(handler, request)
    (refused,) = check_access(targets)
    assert "may not be written" in str(refused) and "AWS_SECRET_ACCESS_KEY" in str(refused)
    proxy.fault = None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (refused,) = check_access(targets)
    assert "may not be written" in str(refused) and "wrong" not in str(refused)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (refused,) = check_access(targets)
    assert "without credentials" in str(refused)


def test_one_place_that_fails_does_not_keep_the_others_from_being_filled(
    s3: S3, bucket: str, write_export: Write
) -> None:
    export = write_export()
    with pytest.raises(UserError) as caught:
        publish(*export, parse_targets(f"s3://no-such-bucket-here/x s3://{bucket}/y"))
    assert len(caught.value.problems) == 1 and "no-such-bucket-here" in str(caught.value)
    assert "y/abc/MANIFEST.json" in keys(s3, bucket)
    assert json.loads(read(s3, bucket, "y/abc/MANIFEST.json"))["key"] == "abc"
