"""An export in a bucket, in a folder of its own.

PREFIX/KEY/ holds the files and, written last, MANIFEST.json. So what holds for who reads there:

- Where a manifest is, all that it names is there, with the sizes and SHA-256 that it says, and nothing else.
- Files below a key do not change once its manifest is there: who loads them meets no mixture of two exports. Only where
  the same export was built anew, with other files, its manifest goes first, and comes back last.
- PREFIX/LATEST is one line, the address of the newest folder; it is replaced in one request, after the manifest.

An upload that was killed leaves no manifest; the next one takes over the files that are whole. Older exports stay.
"""

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

from kfp_finetune.components.export_model.publish.layout import Layout, Upload
from kfp_finetune.components.export_model.publish.s3_client import WORKERS, connect, explain
from kfp_finetune.components.export_model.publish.targets import WHAT, Published, S3Target
from kfp_finetune.errors import Problem, StepError, UserError
from kfp_finetune.manifests import MANIFEST_NAME
from kfp_finetune.progress import progress_printer
from kfp_finetune.sources import retries
from kfp_finetune.sources.s3_client import S3Options

PART_BYTES = 32 * 2**20
"""Larger files go in parts of this size, each with its checksum; a few more than `WORKERS` of them are in memory."""

MOST_PARTS = 10_000
"""That S3 takes of one object."""

LATEST_NAME = "LATEST"
TRIAL_NAME = ".access"
DIGEST = "sha256"
"""Of an object's metadata: the SHA-256 of its content, which was compared before the object appeared."""

Result = TypeVar("Result")


def publish_to_s3(target: S3Target, layout: Layout, options: S3Options) -> Published:
    """Puts an export into a bucket, or finds it there.

    Args:
        target: Where.
        layout: What.
        options: How S3 is reached.

    Raises:
        UserError: If the bucket is not there or may not be written, or the server cannot be reached.
        StepError: If a file is not as the manifest says.
    """
    bucket = _Bucket(target, options)
    folder = bucket.key(layout.key)
    url = f"s3://{target.bucket}/{folder}"
    if not bucket.holds(folder, layout):
        bucket.fill(folder, layout)
    latest = f"{url}\n".encode()
    if bucket.read(bucket.key(LATEST_NAME)) != latest:
        bucket.put(bucket.key(LATEST_NAME), latest)
    return Published(target.address, url, f"sha256:{layout.manifest.sha256}")


def check_s3(target: S3Target, options: S3Options) -> list[Problem]:
    """What keeps an export from being published in a bucket, as far as it can be known without writing.

    Args:
        target: Where.
        options: How S3 is reached.
    """
    try:
        bucket = _Bucket(target, options)
        bucket.sizes(bucket.key(TRIAL_NAME))
        bucket.give_up(bucket.begin(bucket.key(TRIAL_NAME), {}))
    except UserError as error:
        return list(error.problems)
    return []


@dataclass(frozen=True)
class _Bucket:
    """A bucket that is written."""

    target: S3Target
    options: S3Options

    @cached_property
    def client(self) -> Any:
        return connect(self.target, self.options)

    def key(self, name: str) -> str:
        return f"{self.target.prefix}/{name}" if self.target.prefix else name

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Calls an operation of the client, more than once if the network or the server fails."""

        def call() -> dict[str, Any]:
            try:
                return getattr(self.client, operation)(Bucket=self.target.bucket, **arguments)
            except Exception as error:
                raise explain(self.target, error) from error

        return retries.patiently(WHAT, self.target.address, call)

    def sizes(self, prefix: str) -> dict[str, int]:
        """The objects whose keys begin so, and their sizes."""
        found: dict[str, int] = {}
        more: dict[str, str] = {}
        while True:
            page = self.ask("list_objects_v2", Prefix=prefix, **more)
            found |= {entry["Key"]: entry["Size"] for entry in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str) -> bytes:
        """A small object's content; empty if it is not there."""
        if key not in self.sizes(key):
            return b""

        def call() -> bytes:
            try:
                with closing(self.client.get_object(Bucket=self.target.bucket, Key=key)["Body"]) as body:
                    return body.read()
            except Exception as error:
                raise explain(self.target, error) from error

        return retries.patiently(WHAT, self.target.address, call)

    def put(self, key: str, content: bytes) -> None:
        digest = hashlib.sha256(content)
        self.ask(
            "put_object",
            Key=key,
            Body=content,
            ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
            Metadata={DIGEST: digest.hexdigest()},
        )

    def holds(self, folder: str, layout: Layout) -> bool:
        """Whether a folder holds an export, whole, and nothing else."""
        wanted = {f"{folder}/{file.path}": file.size for file in (*layout.files, layout.manifest)}
        return self.sizes(f"{folder}/") == wanted and self.read(f"{folder}/{MANIFEST_NAME}") == layout.manifest.source

    def fill(self, folder: str, layout: Layout) -> None:
        """Makes a folder hold an export; the manifest is there at no moment at which something else is not."""
        there = self.sizes(f"{folder}/")
        if f"{folder}/{MANIFEST_NAME}" in there:
            self.ask("delete_object", Key=f"{folder}/{MANIFEST_NAME}")
        self._give_up_leftovers(f"{folder}/")
        with ThreadPoolExecutor(WORKERS) as pool:
            missing = [
                file
                for file, is_there in zip(
                    layout.files,
                    pool.map(lambda file: self._has(f"{folder}/{file.path}", file, there), layout.files),
                    strict=True,
                )
                if not is_there
            ]
            self._upload(folder, missing, layout.size, pool)
        wanted = {f"{folder}/{file.path}" for file in layout.files}
        for key in there.keys() - wanted - {f"{folder}/{MANIFEST_NAME}"}:
            self.ask("delete_object", Key=key)
        self.put(f"{folder}/{MANIFEST_NAME}", _content(layout.manifest))

    def begin(self, key: str, metadata: Mapping[str, str]) -> dict[str, str]:
        """Begins an upload in parts; returns what names it."""
        answer = self.ask("create_multipart_upload", Key=key, ChecksumAlgorithm="SHA256", Metadata=dict(metadata))
        return {"Key": key, "UploadId": answer["UploadId"]}

    def give_up(self, upload: Mapping[str, str]) -> None:
        """Ends an upload in parts and frees what it holds; it may have ended already."""
        with suppress(UserError):
            self.ask("abort_multipart_upload", **upload)

    def _give_up_leftovers(self, prefix: str) -> None:
        """Frees what killed uploads hold; who may not see them leaves them to the bucket's own rules."""
        with suppress(UserError):
            for upload in self.ask("list_multipart_uploads", Prefix=prefix).get("Uploads", []):
                self.give_up({"Key": upload["Key"], "UploadId": upload["UploadId"]})

    def _has(self, key: str, file: Upload, there: Mapping[str, int]) -> bool:
        if there.get(key) != file.size:
            return False
        return self.ask("head_object", Key=key).get("Metadata", {}).get(DIGEST) == file.sha256

    def _upload(self, folder: str, files: list[Upload], total: int, pool: ThreadPoolExecutor) -> None:
        done = total - sum(file.size for file in files)
        report = progress_printer("publish to S3", total, "byte", done=done)
        small = [file for file in files if file.size <= PART_BYTES]
        for file, _ in zip(small, pool.map(lambda file: self._put_file(folder, file), small), strict=True):
            done += file.size
            report(done)
        for file in files:
            if file.size > PART_BYTES:
                self._put_parts(folder, file, pool, partial(_further, report, done))
                done += file.size

    def _put_file(self, folder: str, file: Upload) -> None:
        content = _content(file)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise _other_content(file)
        self.put(f"{folder}/{file.path}", content)

    def _put_parts(self, folder: str, file: Upload, pool: ThreadPoolExecutor, report: Callable[[int], None]) -> None:
        upload = self.begin(f"{folder}/{file.path}", {DIGEST: file.sha256})
        whole, parts, pending, sent = hashlib.sha256(), [], deque[Future[dict[str, Any]]](), 0
        try:
            for number, data in enumerate(_parts(file), start=1):
                pending.append(pool.submit(self._put_part, upload, number, data))
                whole.update(data)
                sent += len(data)
                if len(pending) > WORKERS:
                    parts.append(pending.popleft().result())
                    report(sent)
            parts += [each.result() for each in pending]
            if whole.hexdigest() != file.sha256:
                raise _other_content(file)
            self._complete(upload, file, parts)
        except BaseException:
            for each in pending:
                each.cancel()
            wait(pending)
            self.give_up(upload)
            raise
        report(file.size)

    def _put_part(self, upload: Mapping[str, str], number: int, data: bytes) -> dict[str, Any]:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = self.ask("upload_part", **upload, PartNumber=number, Body=data, ChecksumSHA256=checksum)
        known = {"ChecksumSHA256": checksum} if "ChecksumSHA256" in answer else {}
        return {"PartNumber": number, "ETag": answer["ETag"], **known}

    def _complete(self, upload: Mapping[str, str], file: Upload, parts: list[dict[str, Any]]) -> None:
        """Makes an object of the parts; if the answer was lost, a second attempt finds the upload gone."""
        try:
            self.ask("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except UserError:
            if not self._has(upload["Key"], file, self.sizes(upload["Key"])):
                raise


def _further(report: Callable[..., None], before: int, done: int) -> None:
    report(before + done)


def _content(file: Upload) -> bytes:
    with file.open() as content:
        return content.read()


def _parts(file: Upload) -> Iterator[bytes]:
    """A file's content in parts of one size but the last."""
    size = max(PART_BYTES, -(-file.size // MOST_PARTS))
    with file.open() as content:
        while data := content.read(size):
            yield data


def _other_content(file: Upload) -> StepError:
    return StepError(f"{file.path} is not what the export's manifest says; it is not published, export again")
