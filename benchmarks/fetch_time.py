"""Fetching from the Hub and from S3 against the tools that do only that, from the same server on loopback."""

import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measure import Figure, Run, in_turns, ratios, run, seconds_of

SIZE = 2_000_000_000
COUNTS = (1, 8, 200)
ROUNDS = 5
REUSED_FILES = 1000
BUCKET = "bench"
FETCH = """
import sys
from pathlib import Path
from kfp_finetune.fetch import Wanted, fetch
from kfp_finetune.sources.patterns import Patterns
from kfp_finetune.sources.source import open_source
from kfp_finetune.workspace import open_workspace
workspace = open_workspace(sys.argv[2])
source = open_source("model", sys.argv[1], Patterns(allow=("*.bin",)))
fetch(workspace, Wanted("model", source, {}, lambda names: None, lambda directory: {}), workspace.model)
"""


def measure(directory: Path) -> list[Figure]:
    """Fetches 2 GB in 1, 8 and 200 files both ways, and finds 1,000 files again.

    Args:
        directory: Where to work; about 10 GB are needed.
    """
    figures = []
    sides = {_serve_hub: {"hf download": _hf}, _serve_s3: {"s5cmd": _s3, "s5cmd, md5sum and sha256sum": _s3_checked}}
    for serve, tools in sides.items():
        for count in COUNTS:
            with serve(directory, count) as address:
                for name, theirs in tools.items():
                    figures += _compare(directory, f"fetch of 2 GB in {count} files / {name}", address, theirs)
    with _serve_hub(directory, REUSED_FILES, REUSED_FILES * 1000) as address:
        figures.append(_reuse(directory, address))
    return figures


def _compare(directory: Path, name: str, address: str, theirs: Callable[[str, Path], list[str]]) -> list[Figure]:
    def ours_once(_: int) -> Run:
        return _timed(directory, [sys.executable, "-c", FETCH, address, str(directory / "target")])

    def theirs_once(_: int) -> Run:
        return _timed(directory, theirs(address, directory / "target"))

    ours, others = in_turns(ROUNDS, ours_once, theirs_once)
    ratio, spread = ratios(seconds_of(ours), seconds_of(others))
    peak = max(one.peak_bytes for one in ours)
    seconds = statistics.median(seconds_of(ours))
    return [
        Figure(name, f"{ratio:.2f}", "<= 1.05", spread),
        Figure("... peak memory", f"{peak / 1e6:.0f} MB", "<= 300 MB", f"{seconds:.1f} s"),
    ]


def _timed(directory: Path, command: list[str]) -> Run:
    shutil.rmtree(directory / "target", ignore_errors=True)
    (directory / "target").mkdir()
    os.sync()
    return run(command, directory / "fetch.log")


def _reuse(directory: Path, address: str) -> Figure:
    code = f"import time\n{FETCH.replace('fetch(workspace, W', 'began = time.monotonic(); fetch(workspace, W')}"
    command = [sys.executable, "-c", f"{code}\nprint('seconds', time.monotonic() - began)", address]
    _timed(directory, [*command, str(directory / "target")])
    seconds = []
    for _ in range(ROUNDS):
        run([*command, str(directory / "target")], directory / "reuse.log")
        seconds.append(float((directory / "reuse.log").read_text().split("seconds ")[-1]))
    value, spread = statistics.median(seconds), f"{min(seconds):.2f} to {max(seconds):.2f} s"
    return Figure(f"finding {REUSED_FILES:,} files again", f"{value:.2f} s", "< 2 s", spread)


def _hf(address: str, target: Path) -> list[str]:
    tool = str(Path(sys.executable).with_name("hf"))
    return [tool, "download", address.removeprefix("hf://"), "--local-dir", str(target)]


def _s3(address: str, target: Path) -> list[str]:
    return [_s5cmd(), "cp", f"{address}*", f"{target}/"]


def _s3_checked(address: str, target: Path) -> list[str]:
    """What s5cmd leaves out: a digest to compare with the ETag, and one for the record."""
    digests = f"ls -d {target}/* | xargs -P 2 -n 8 md5sum; ls -d {target}/* | xargs -P 2 -n 8 sha256sum"
    return ["sh", "-ec", f"{_s5cmd()} cp '{address}*' {target}/; {digests}"]


def _s5cmd() -> str:
    return str(Path(sys.executable).with_name("s5cmd"))


@contextmanager
def _serve_hub(directory: Path, count: int, size: int = SIZE) -> Iterator[str]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_hub, args=[theirs, count, size], daemon=True)
    process.start()
    try:
        os.environ |= {"HF_ENDPOINT": ours.recv(), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        yield "hf://org/model"
    finally:
        ours.send("end")
        process.join()


def _run_hub(pipe: Connection, count: int, size: int) -> None:
    from tests.servers.hub import serve

    with serve() as hub:
        hub.add("model", "org/model", {f"{number:05}.bin": os.urandom(size // count) for number in range(count)})
        pipe.send(hub.url)
        pipe.recv()


@contextmanager
def _serve_s3(directory: Path, count: int) -> Iterator[str]:
    from tests.servers.s3 import ACCESS_KEY, SECRET_KEY, serve

    place = directory / f"weed-{count}-{time.monotonic_ns()}"
    place.mkdir()
    with serve(place) as server:
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        for number in range(count):
            _write_random(directory / "upload", SIZE // count)
            client.upload_file(str(directory / "upload"), BUCKET, f"{number:05}.bin")
        os.environ |= {"AWS_ENDPOINT_URL_S3": server.url, "S3_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        yield f"s3://{BUCKET}/"
    shutil.rmtree(place)


def _write_random(path: Path, size: int) -> None:
    """In pieces: the memory of this process would count as that of those it starts."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, 2**24)))
