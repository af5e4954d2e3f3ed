"""Objects of S3: chosen, verified, reused; with boto3 against SeaweedFS on loopback, and a proxy that misbehaves."""

import itertools
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from boto3.s3.transfer import TransferConfig
from servers import faults
from servers.proxy import Proxy, serve
from servers.s3 import S3

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import UserError
from kfp_finetune.sources import arrival, retries
from kfp_finetune.sources.s3 import S3Options
from kfp_finetune.workspace import FETCH_REPORT_NAME, Manifest, read_manifest

ROWS = '{"input": "a", "output": "b"}\n'
LARGE = "".join(f'{{"input": "{number}"}}\n' for number in range(20_000))


@pytest.fixture
def bucket(s3: S3) -> str:
    """An empty bucket."""
    name = f"tests-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, at the endpoint; files come in small parts."""
    monkeypatch.setattr(arrival, "PART_BYTES", 50_000)
    with serve(s3.url) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running


def put(s3: S3, bucket: str, *keys: str, content: str = ROWS) -> None:
    for key in keys:
        s3.client().put_object(Bucket=bucket, Key=key, Body=content.encode())


def names(manifest: Manifest) -> list[str]:
    return [file.path for file in manifest.files if file.path != FETCH_REPORT_NAME]


def entries(workspace: Path) -> list[str]:
    return sorted(path.name for path in (workspace / "datasets").glob("*") if path.suffix != ".lock")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("rows", ["a.jsonl", "sub/b.jsonl"]),
        ("rows/", ["a.jsonl", "sub/b.jsonl"]),
        ("rows/sub/b.jsonl", ["b.jsonl"]),
        ("", ["rows/a.jsonl", "rows/sub/b.jsonl", "rows2/c.jsonl"]),
    ],
)
def test_an_object_a_prefix_or_a_bucket_is_published(
    s3: S3, bucket: str, tmp_path: Path, key: str, expected: list[str]
) -> None:
    put(s3, bucket, "rows/a.jsonl", "rows/sub/b.jsonl", "rows2/c.jsonl", "rows/x.md", "rows/.hidden/d.jsonl")
    put(s3, bucket, "rows/folder/", content="")
    manifest = initialize_dataset(f"s3://{bucket}/{key}", str(tmp_path))
    assert names(manifest) == expected
    assert all((tmp_path / manifest.path / name).read_text() == ROWS for name in expected)
    assert read_manifest(tmp_path / manifest.path) == manifest
    assert manifest.revision.startswith("etags:")


def test_a_folder_that_datasets_saved_is_read_as_it_was(s3: S3, bucket: str, tmp_path: Path) -> None:
    saved = datasets.Dataset.from_dict({"input": ["a", "b"], "output": ["c", "d"]})
    saved.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        s3.client().upload_file(str(path), bucket, f"saved/{path.name}")
    manifest = initialize_dataset(f"s3://{bucket}/saved", str(tmp_path / "workspace"))
    with open_split(tmp_path / "workspace" / manifest.path, "train") as rows:
        assert rows[:] == saved[:]
    assert manifest.facts["rows"] == 2


def test_an_object_that_was_uploaded_in_parts_is_verified_and_streamed_in_parts(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "PART_BYTES", 2**20)
    path = tmp_path / "large.jsonl"
    path.write_text(ROWS * 200_000)
    in_parts = TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20)
    s3.client().upload_file(str(path), bucket, "large.jsonl", Config=in_parts)
    manifest = initialize_dataset(f"s3://{bucket}/large.jsonl", str(tmp_path / "workspace"))
    assert (tmp_path / "workspace" / manifest.path / "large.jsonl").read_text() == ROWS * 200_000
    ranges = {
        request.headers["range"] for request in proxy.requests if request.method == "GET" and "range" in request.headers
    }
    assert len(ranges) == 6
    proxy.change = lambda path, body: b"x" + body[1:] if "large.jsonl" in path and body.startswith(b"{") else body
    with pytest.raises(UserError, match=r"large\.jsonl damaged 3 times"):
        initialize_dataset(f"s3://{bucket}/large.jsonl", str(tmp_path / "workspace"), reuse=False)


def test_what_is_on_the_volume_is_found_and_a_changed_object_is_seen(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, *(f"rows/{number}.jsonl" for number in range(5)))
    first = initialize_dataset(f"s3://{bucket}/rows", str(tmp_path))
    proxy.requests.clear()
    assert initialize_dataset(f"s3://{bucket}/rows", str(tmp_path)) == first
    assert len(proxy.requests) == 2 and not any("jsonl" in request.path for request in proxy.requests)
    put(s3, bucket, "rows/3.jsonl", content=ROWS * 2)
    assert initialize_dataset(f"s3://{bucket}/rows", str(tmp_path)).key != first.key


def test_endpoint_region_and_style_can_be_given(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    put(s3, bucket, "a.jsonl")
    options = S3Options(s3.url, "eu-central-1", "path")
    assert names(initialize_dataset(f"s3://{bucket}", str(tmp_path), s3=options)) == ["a.jsonl"]


PASSING = {
    "503": faults.times(3, faults.answer(503)),
    "503 of the listing": faults.times(3, faults.answer(503), lambda path: "list-type" in path),
    "429": faults.times(2, faults.answer(429, Retry_After="1")),
    "reset": faults.times(3, faults.reset),
    "cut": faults.times(3, faults.cut),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_is_overcome(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, fault: faults.Fault
) -> None:
    put(s3, bucket, "rows/large.jsonl", content=LARGE)
    proxy.fault = fault
    manifest = initialize_dataset(f"s3://{bucket}/rows", str(tmp_path))
    assert (tmp_path / manifest.path / "large.jsonl").read_text() == LARGE
    assert entries(tmp_path) == [manifest.key]


def test_a_connection_on_which_nothing_comes_is_given_up_and_tried_again(
    s3: S3,
    bucket: str,
    tmp_path: Path,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(retries, "STALL_SECONDS", 0.5)
    put(s3, bucket, "rows/large.jsonl", content=LARGE)
    over = threading.Event()
    proxy.fault = faults.times(2, faults.stall(over))
    try:
        manifest = initialize_dataset(f"s3://{bucket}/rows", str(tmp_path))
    finally:
        over.set()
    assert (tmp_path / manifest.path / "large.jsonl").read_text() == LARGE
    assert capfd.readouterr().out.count("ReadTimeout") >= 2


def test_credentials_that_expire_during_the_download_cost_nothing_of_it(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "large.jsonl", content=LARGE)
    served = itertools.count()
    proxy.fault = lambda handler, request: next(served) > 6 and faults.answer(403)(handler, request)
    with pytest.raises(UserError, match="which may not be read"):
        initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert [name.startswith(".part-") for name in entries(tmp_path)] == [True]
    proxy.fault = None
    proxy.requests.clear()
    initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert len([request for request in proxy.requests if "large.jsonl" in request.path]) < -(-len(LARGE) // 50_000)


def test_a_fault_that_lasts_is_said_and_the_next_attempt_goes_on_from_there(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "large.jsonl", content=LARGE)
    served = itertools.count()
    proxy.fault = lambda handler, request: next(served) > 6 and faults.reset(handler, request)
    with pytest.raises(UserError, match="the network or the server: "):
        initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert [name.startswith(".part-") for name in entries(tmp_path)] == [True]
    proxy.fault = None
    proxy.requests.clear()
    manifest = initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert (tmp_path / manifest.path / "large.jsonl").read_text() == LARGE
    asked = [request for request in proxy.requests if "large.jsonl" in request.path]
    assert len(asked) < -(-len(LARGE) // 50_000)


def test_an_object_that_changes_during_the_download_is_refused(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "large.jsonl", content=LARGE)

    def change(handler: Any, request: Any) -> bool:
        if faults.is_body(request.path):
            put(s3, bucket, "large.jsonl", content=LARGE + ROWS)
        return False

    proxy.fault = change
    with pytest.raises(UserError, match="objects changed while they were fetched"):
        initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert entries(tmp_path) == []


def test_an_etag_that_is_no_digest_since_a_key_service_encrypts_is_not_compared(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "a.jsonl")
    proxy.change = lambda path, body: body.upper() if faults.is_body(path) else body
    with pytest.raises(UserError, match="damaged 3 times"):
        initialize_dataset(f"s3://{bucket}", str(tmp_path))
    proxy.headers = {"x-amz-server-side-encryption": "aws:kms"}
    manifest = initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert (tmp_path / manifest.path / "a.jsonl").read_text() == ROWS.upper()


@pytest.mark.parametrize(
    ("key", "secret", "messages"),
    [
        ("{}/none", "", ["there is no object of the wanted kinds"]),
        ("no-such-bucket/x", "", ["which is not there (NoSuchBucket)"]),
        ("{}/a.jsonl", "wrong", ["may not be read (SignatureDoesNotMatch)", "AWS_SECRET_ACCESS_KEY"]),
        ("{}/a.jsonl", None, ["may not be read (AccessDenied)", "AWS_ACCESS_KEY_ID"]),
        ("UPPER_case/x", "", ["s3://UPPER_case/x"]),
    ],
)
def test_what_s3_refuses_is_the_name_or_the_credentials(
    s3: S3,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    secret: str | None,
    messages: list[str],
) -> None:
    put(s3, bucket, "a.jsonl")
    if secret:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    elif secret is None:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError) as caught:
        initialize_dataset(f"s3://{key.format(bucket)}", str(tmp_path))
    assert len(caught.value.problems) == 1
    for message in messages:
        assert message in str(caught.value)
    assert "the-secret-key" not in str(caught.value) and entries(tmp_path) == []


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3:// /x"])
def test_an_address_without_a_bucket_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UserError, match="s3://BUCKET"):
        initialize_dataset(uri, str(tmp_path))


def test_a_server_that_is_not_there_is_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(UserError, match="because of the network or the server"):
        initialize_dataset("s3://bucket/x", str(tmp_path))


def test_keys_that_no_folder_can_hold_are_refused(s3: S3, bucket: str, tmp_path: Path, proxy: Proxy) -> None:
    put(s3, bucket, "a.jsonl")
    proxy.change = lambda path, body: body.replace(b"<Key>a.jsonl", b"<Key>rows/../../a.jsonl")
    with pytest.raises(UserError, match="with a file named"):
        initialize_dataset(f"s3://{bucket}", str(tmp_path / "workspace"))
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]
