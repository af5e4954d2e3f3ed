"""Objects of S3 and of what speaks its protocol."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from kfp_finetune.errors import refuse
from kfp_finetune.manifests import FileEntry
from kfp_finetune.sources import retries
from kfp_finetune.sources.arrival import RemoteFile
from kfp_finetune.sources.checksums import Checksum
from kfp_finetune.sources.download import WORKERS, Remote, download
from kfp_finetune.sources.names import check_names, is_hidden
from kfp_finetune.sources.patterns import Patterns, matches_glob, no_match, split_pattern
from kfp_finetune.sources.redaction import redact
from kfp_finetune.sources.s3_checksums import etag_checksum, stated_checksum
from kfp_finetune.sources.s3_client import S3Options, make_client, open_session
from kfp_finetune.sources.s3_errors import explain

CHUNK_BYTES = 2**20

Result = TypeVar("Result")


@dataclass(frozen=True)
class S3Address:
    """An object, a prefix, or a pattern.

    Args:
        bucket: Name of the bucket.
        key: An object's key, a prefix of keys, or a pattern; empty for the whole bucket.
    """

    bucket: str
    key: str


def parse_s3(what: str, uri: str, rest: str) -> S3Address:
    """Reads BUCKET/KEY.

    Raises:
        UserError: If there is no bucket.
    """
    bucket, _, key = rest.partition("/")
    if not bucket.strip() or "@" in bucket:
        raise refuse(
            what,
            redact(repr(uri)),
            "s3://BUCKET/PREFIX or s3://BUCKET/KEY, without credentials",
            "Name the bucket; credentials come from the environment.",
        )
    return S3Address(bucket, key)


@dataclass(frozen=True)
class S3Source:
    """One object, or those below a prefix or that match a pattern, as they were listed.

    HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE are honoured. Hidden objects and the empty ones that stand for folders are
    left out. Without credentials, requests are not signed: public buckets can be read.

    Args:
        what: "dataset" or "model": the parameter that asks for it.
        uri: As the user wrote it.
        address: What it says.
        patterns: Which objects below a prefix are wanted; a single object is always wanted.
        options: How S3 is reached.
    """

    what: str
    uri: str
    address: S3Address
    patterns: Patterns
    options: S3Options

    @property
    def origin(self) -> str:
        """The bucket and prefix, on the server that is asked."""
        return f"{self._client.meta.endpoint_url}/{self.address.bucket}/{self.address.key}"

    def revision(self) -> str:
        """A SHA-256 over the listing: names, sizes and ETags. An object that is written anew changes it.

        Raises:
            UserError: If there is no such bucket or object, or it may not be read.
        """
        lines = "".join(f"{file.path}\0{file.size}\0{file.checksum.value}\n" for file in self._files)
        return f"etags:{hashlib.sha256(lines.encode()).hexdigest()}"

    def files(self) -> Mapping[str, int]:
        """The wanted objects and their sizes; see `kfp_finetune.sources.source.Source`."""
        return {file.path: file.size for file in self._files}

    def fetch(self, target: Path, on_bytes: Callable[[int, int], None]) -> tuple[FileEntry, ...]:
        """Downloads the wanted objects; see `kfp_finetune.sources.source.Source`."""
        with ThreadPoolExecutor(WORKERS) as pool:
            files = list(pool.map(lambda file: replace(file, checksum=self._expected(file)), self._files))
        return download(Remote(self.what, self.uri, self._read, self._stated), files, target, on_bytes)

    @cached_property
    def _client(self) -> Any:
        from botocore import UNSIGNED

        session = open_session(self.options)
        signature = None if session.get_credentials() else UNSIGNED
        return make_client(session, self.options, WORKERS, signature_version=signature)

    @cached_property
    def _files(self) -> tuple[RemoteFile, ...]:
        key = self.address.key
        files = self._single() if key and not key.endswith("/") else []
        if not files:
            files = [file for file in self._below(key) or self._matching(key) if self.patterns.wants(file.path)]
        if not files:
            raise refuse(
                self.what,
                f"{redact(self.uri)}, where there is no object of the wanted kinds",
                f"an object, or a prefix with objects like {', '.join(self.patterns.allow)}",
                "Check the key for a typo, or name other objects with allow_patterns.",
            )
        check_names(self.what, self.uri, [file.path for file in files])
        return tuple(sorted(files, key=lambda file: file.path))

    def _single(self) -> list[RemoteFile]:
        """The object of that very key, which a listing would give first."""
        address = {"Bucket": self.address.bucket, "Prefix": self.address.key, "MaxKeys": 1}
        found = self._ask(lambda: self._client.list_objects_v2(**address)).get("Contents", [])
        return [_remote(entry, entry["Key"].rpartition("/")[2]) for entry in found if entry["Key"] == self.address.key]

    def _below(self, key: str) -> list[RemoteFile]:
        """The objects below a key but the hidden ones, and the empty ones that stand for folders."""
        prefix = key if not key or key.endswith("/") else f"{key}/"
        listed = [_remote(entry, entry["Key"][len(prefix) :]) for entry in self._list(prefix) if entry["Key"] != prefix]
        kept = [file for file in listed if not (file.path.endswith("/") and not file.size)]
        return [file for file in kept if not is_hidden(file.path)]

    def _matching(self, key: str) -> list[RemoteFile]:
        """The objects that a key matches if it is a pattern."""
        folder, pattern = split_pattern(key)
        listed = self._below(folder) if pattern else []
        matching = [file for file in listed if matches_glob(file.path, pattern)]
        if pattern and not matching:
            raise no_match(self.what, self.uri, (file.path for file in listed))
        return matching

    def _list(self, prefix: str) -> list[dict[str, Any]]:
        address = {"Bucket": self.address.bucket, "Prefix": prefix}
        pages = self._ask(lambda: list(self._client.get_paginator("list_objects_v2").paginate(**address)))
        return [entry for page in pages for entry in page.get("Contents", [])]

    def _expected(self, file: RemoteFile) -> Checksum:
        """What the content is compared with first: an ETag that looks like an MD5 is taken for one without asking."""
        return etag_checksum(file.checksum.value) or self._stated(file)

    def _stated(self, file: RemoteFile) -> Checksum:
        address = {"Bucket": self.address.bucket, "Key": file.address, "IfMatch": self._etags[file.address]}
        head = self._ask(lambda: self._client.head_object(**address, ChecksumMode="ENABLED"))

        def part_bytes(number: int) -> int:
            return self._ask(lambda: self._client.head_object(**address, PartNumber=number))["ContentLength"]

        return stated_checksum(file.size, head, part_bytes)

    def _read(self, file: RemoteFile, start: int, stop: int) -> Iterator[bytes]:
        span = {"Range": f"bytes={start}-{stop - 1}", "IfMatch": self._etags[file.address]}
        try:
            answer = self._client.get_object(Bucket=self.address.bucket, Key=file.address, **span)
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)
        except Exception as error:
            raise explain(self.what, self.uri, error) from error

    @cached_property
    def _etags(self) -> dict[str, str]:
        return {file.address: file.checksum.value for file in self._files}

    def _ask(self, call: Callable[[], Result]) -> Result:
        def ask() -> Result:
            try:
                return call()
            except Exception as error:
                raise explain(self.what, self.uri, error) from error

        return retries.patiently(self.what, self.uri, ask)


def _remote(entry: Mapping[str, Any], path: str) -> RemoteFile:
    return RemoteFile(path, entry["Size"], entry["Key"], Checksum("etag", entry["ETag"].strip('"')))
