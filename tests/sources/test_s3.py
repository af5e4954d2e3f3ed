"""Objects of S3: chosen, verified, reused; with boto3 against SeaweedFS on loopback, and a proxy that misbehaves."""

import hashlib
import itertools
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pytest
from boto3.s3.transfer import TransferConfig
from children import killed_at, small_volume
from servers import faults
from servers.certificates import write_certificate
from servers.proxy import Proxy, serve
from servers.roles import RoleServer
from servers.roles import serve as serve_roles
from servers.s3 import ACCESS_KEY, S3, SECRET_KEY

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.datafiles import open_split
from kfp_finetune.errors import UserError
from kfp_finetune.manifests import Manifest, read_manifest
from kfp_finetune.sources import arrival, retries
from kfp_finetune.sources.s3_client import S3Options
from kfp_finetune.workspace import FETCH_REPORT_NAME

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


def verified(manifest: Manifest) -> dict[str, str]:
    return {file.path: file.verified for file in manifest.files if file.path != FETCH_REPORT_NAME}


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


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("rows/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("rows/[b-z]*.jsonl", ["b.jsonl"]),
        ("r*/?.jsonl", ["rows/a.jsonl", "rows/b.jsonl", "rows2/c.jsonl"]),
        ("rows/**/*.jsonl", ["a.jsonl", "b.jsonl", "sub/b.jsonl"]),
        ("**/b.jsonl", ["rows/b.jsonl", "rows/sub/b.jsonl"]),
        ("odd/a[1].jsonl", ["a[1].jsonl"]),
        ("odd/[x]", ["d.jsonl"]),
    ],
)
def test_a_pattern_takes_the_objects_it_matches(
    s3: S3, bucket: str, tmp_path: Path, key: str, expected: list[str]
) -> None:
    put(s3, bucket, "rows/a.jsonl", "rows/b.jsonl", "rows/sub/b.jsonl", "rows2/c.jsonl", "rows/x.md", "rows/.e.jsonl")
    put(s3, bucket, "odd/a[1].jsonl", "odd/a1.jsonl", "odd/[x]/d.jsonl", "odd/x/e.jsonl")
    put(s3, bucket, "rows/sub/", content="")
    manifest = initialize_dataset(f"s3://{bucket}/{key}", str(tmp_path))
    assert names(manifest) == expected
    assert initialize_dataset(f"s3://{bucket}/{key}", str(tmp_path)) == manifest


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("rows/*.csv", "matches nothing of what is there: 'a.jsonl', 'x.md'; allowed: a pattern"),
        ("none/*.jsonl", "matches nothing of what is there: no file; allowed: a pattern"),
        ("rows/*.md", "where there is no object of the wanted kinds"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_what_is_there(
    s3: S3, bucket: str, tmp_path: Path, key: str, message: str
) -> None:
    put(s3, bucket, "rows/a.jsonl", "rows/x.md")
    with pytest.raises(UserError) as caught:
        initialize_dataset(f"s3://{bucket}/{key}", str(tmp_path))
    assert message in str(caught.value) and f"s3://{bucket}/{key}" in str(caught.value)


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


@pytest.mark.parametrize("files", [{"large.jsonl": LARGE}, {f"{number}.jsonl": ROWS for number in range(9)}])
def test_several_objects_or_parts_of_one_come_at_once(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, files: dict[str, str]
) -> None:
    for name, content in files.items():
        put(s3, bucket, f"rows/{name}", content=content)
    barrier = threading.Barrier(4, timeout=60)
    proxy.fault = faults.times(4, faults.together(barrier))
    manifest = initialize_dataset(f"s3://{bucket}/rows", str(tmp_path))
    assert not barrier.broken
    assert all((tmp_path / manifest.path / name).read_text() == content for name, content in files.items())


def test_credentials_that_expire_during_the_download_cost_nothing_of_it(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_finetune.sources.download.WORKERS", 1)  # one part after the other
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
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_finetune.sources.download.WORKERS", 1)  # one part after the other
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


KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "a-key"}


def put_encrypted(s3: S3, proxy: Proxy, bucket: str, content: str, **asked: str) -> None:
    """An object whose ETag is no MD5, as Amazon's is where a key service encrypts."""
    s3.client().put_object(Bucket=bucket, Key="large.jsonl", Body=content.encode(), **KMS, **asked)
    proxy.etags = {hashlib.md5(content.encode()).hexdigest(): "0123456789abcdef" * 2}


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_an_object_that_a_key_service_encrypts_is_verified_by_the_checksum_that_the_server_keeps(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, algorithm: str
) -> None:
    put_encrypted(s3, proxy, bucket, LARGE, ChecksumAlgorithm=algorithm)
    manifest = initialize_dataset(f"s3://{bucket}", str(tmp_path / "good"))
    assert (tmp_path / "good" / manifest.path / "large.jsonl").read_text() == LARGE
    assert verified(manifest) == {"large.jsonl": algorithm.lower()}
    proxy.change = lambda path, body: b"x" + body[1:] if faults.is_body(path) else body
    with pytest.raises(UserError, match=r"large\.jsonl damaged 3 times"):
        initialize_dataset(f"s3://{bucket}", str(tmp_path / "bad"))


def test_a_download_of_encrypted_objects_goes_on_where_it_was(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put_encrypted(s3, proxy, bucket, LARGE)
    initialize_dataset(f"s3://{bucket}", str(tmp_path))
    entry = next(path for path in (tmp_path / "datasets").iterdir() if path.is_dir())
    entry.rename(entry.with_name(f".part-{entry.name}"))
    proxy.requests.clear()
    manifest = initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert (tmp_path / manifest.path / "large.jsonl").read_text() == LARGE
    assert [request.method for request in proxy.requests if "large.jsonl" in request.path] == ["HEAD"]


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ({"ChecksumAlgorithm": "CRC64NVME"}, "crc64nvme"),
        ({"ChecksumAlgorithm": "CRC32"}, "crc32 of parts"),
        (KMS | {"ChecksumAlgorithm": "SHA256"}, "sha256 of parts"),
    ],
)
def test_an_object_that_was_uploaded_in_parts_has_a_checksum_of_all_or_of_the_parts(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, asked: dict[str, str], title: str
) -> None:
    path = tmp_path / "large.jsonl"
    path.write_text(ROWS * 200_000)
    in_parts = TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20)
    s3.client().upload_file(str(path), bucket, "large.jsonl", ExtraArgs=asked, Config=in_parts)
    manifest = initialize_dataset(f"s3://{bucket}", str(tmp_path / "good"))
    assert verified(manifest) == {"large.jsonl": title}
    proxy.change = lambda path, body: b"x" + body[1:] if "large.jsonl" in path and body.startswith(b"{") else body
    with pytest.raises(UserError, match=r"large\.jsonl damaged 3 times"):
        initialize_dataset(f"s3://{bucket}", str(tmp_path / "bad"))


def test_the_manifest_says_how_each_file_was_verified_and_of_which_only_the_size(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "a.jsonl")
    put_encrypted(s3, proxy, bucket, LARGE)
    without = [f"x-amz-checksum-{name}" for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")]
    proxy.dropped = tuple(without)
    manifest = initialize_dataset(f"s3://{bucket}", str(tmp_path))
    assert verified(manifest) == {"a.jsonl": "md5", "large.jsonl": "size alone"}
    assert read_manifest(tmp_path / manifest.path) == manifest
    assert (tmp_path / manifest.path / "large.jsonl").read_text() == LARGE


def test_killed_at_twenty_random_moments_it_leaves_all_or_nothing_and_goes_on(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "rows/small.jsonl")
    put(s3, bucket, "rows/large.jsonl", content=LARGE)
    parts = -(-len(LARGE) // 50_000)
    kills = resumed = 0
    for moment in random.Random(7).sample(range(120), 20):
        root = tmp_path / str(moment)
        kills += killed_at(moment, lambda root=root: initialize_dataset(f"s3://{bucket}/rows", str(root)))
        for name in entries(root):
            if not name.startswith("."):
                assert_whole(root, read_manifest(root / "datasets" / name))
        proxy.requests.clear()
        assert_whole(root, initialize_dataset(f"s3://{bucket}/rows", str(root)))
        resumed += len([request for request in proxy.requests if ".jsonl" in request.path]) < parts + 1
    assert kills >= 15 and resumed >= 5


def assert_whole(root: Path, manifest: Manifest | None) -> None:
    assert manifest is not None and entries(root) == [manifest.key]
    assert names(manifest) == ["large.jsonl", "small.jsonl"]
    assert (root / manifest.path / "large.jsonl").read_text() == LARGE
    assert (root / manifest.path / "small.jsonl").read_text() == ROWS
    assert len(list((root / manifest.path).rglob("*"))) == len(manifest.files) + 1


WRITER = """
import sys
from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
print(initialize_dataset(sys.argv[1], sys.argv[2]).key)
"""


def test_of_two_processes_that_want_the_same_one_fetches_it(s3: S3, bucket: str, tmp_path: Path, proxy: Proxy) -> None:
    put(s3, bucket, *(f"rows/{number}.jsonl" for number in range(5)))
    command = [sys.executable, "-c", WRITER, f"s3://{bucket}/rows", str(tmp_path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second,
    ):
        said = [process.communicate()[0].splitlines()[-1] for process in (first, second)]
    assert said[0] == said[1] and entries(tmp_path) == [said[0]]
    assert len([request for request in proxy.requests if ".jsonl" in request.path]) == 5


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of two megabytes."""
    with small_volume(tmp_path / "volume", "2m") as directory:
        yield directory


def test_what_does_not_fit_is_refused_before_a_byte_is_fetched(s3: S3, bucket: str, volume: Path, proxy: Proxy) -> None:
    put(s3, bucket, "large.jsonl", content=ROWS * 100_000)
    with pytest.raises(UserError, match=r"bytes free, where s3://.* needs 3,000,000 more"):
        initialize_dataset(f"s3://{bucket}", str(volume))
    assert entries(volume) == [] and not any("large.jsonl" in request.path for request in proxy.requests[1:])


def test_a_disk_that_fills_up_meanwhile_is_the_disk_and_leaves_nothing(
    s3: S3, bucket: str, volume: Path, proxy: Proxy
) -> None:
    put(s3, bucket, "large.jsonl", content=ROWS * 50_000)

    def fill(handler: object, request: Any) -> bool:
        if faults.is_body(request.path):
            with suppress(OSError):
                (volume / "filler").write_bytes(b"x" * 2_000_000)
        return False

    proxy.fault = fill
    with pytest.raises(UserError, match=r"No space left on device while fetching s3://"):
        initialize_dataset(f"s3://{bucket}", str(volume))
    assert entries(volume) == []


@pytest.fixture
def roles(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[RoleServer]:
    """A server of credentials, and no others in the environment."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with serve_roles(ACCESS_KEY, SECRET_KEY) as running:
        yield running


def by_pod_identity(roles: RoleServer, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{roles.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))


def by_web_identity(roles: RoleServer, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles.url)


@pytest.mark.parametrize("by", [by_pod_identity, by_web_identity])
@pytest.mark.parametrize("key", ["rows", ""])
def test_a_role_of_the_pod_gives_the_credentials_and_its_token_is_not_shown(
    s3: S3,
    bucket: str,
    tmp_path: Path,
    roles: RoleServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    by: Callable[[RoleServer, Path, pytest.MonkeyPatch], None],
    key: str,
) -> None:
    put(s3, bucket, "rows/a.jsonl")
    (tmp_path / "token").write_text("the-pods-token")
    by(roles, tmp_path / "token", monkeypatch)
    assert len(names(initialize_dataset(f"s3://{bucket}/{key}", str(tmp_path / "good")))) == 1
    assert roles.tokens == ["the-pods-token"]
    roles.refuses = True
    with pytest.raises(UserError, match=r"(?s)credentials.*(Secret|role)") as caught:
        initialize_dataset(f"s3://{bucket}/{key}", str(tmp_path / "bad"))
    assert "the-pods-token" not in "".join(capfd.readouterr()) + str(caught.value)


def test_a_thousand_objects_are_found_again_without_a_request_for_each(
    s3: S3, bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    keys = [f"rows/{number:04}.jsonl" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: put(s3, bucket, key), keys))
    first = initialize_dataset(f"s3://{bucket}/rows", str(tmp_path))
    assert len(names(first)) == 1001
    proxy.requests.clear()
    assert initialize_dataset(f"s3://{bucket}/rows", str(tmp_path)) == first
    assert len(proxy.requests) == len(["the very key", "the first thousand", "the rest"])


def test_a_private_authority_is_trusted_if_it_is_named_and_else_asked_for(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, bucket, "a.jsonl")
    certificate = write_certificate(tmp_path)
    with serve(s3.url, certificate) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        with pytest.raises(UserError, match=r"(?s)not trusted: .*SSL_CERT_FILE"):
            initialize_dataset(f"s3://{bucket}", str(tmp_path / "workspace"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert names(initialize_dataset(f"s3://{bucket}", str(tmp_path / "workspace"))) == ["a.jsonl"]


def test_a_proxy_is_used(s3: S3, bucket: str, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    put(s3, bucket, "a.jsonl")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.invalid")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    options = S3Options(addressing_style="path")
    assert names(initialize_dataset(f"s3://{bucket}", str(tmp_path), s3=options)) == ["a.jsonl"]
    assert proxy.requests


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
