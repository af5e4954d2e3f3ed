"""No password, signature or token in a message, however it came into the address."""

from pathlib import Path

import huggingface_hub
import pytest
from servers.hub import Hub

from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset
from kfp_finetune.errors import UserError
from kfp_finetune.sources.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:p@55w@proxy:1 is down", "http://proxy:1 is down"),
        ("'https://hub/x?token=55w' and http://a:b@c/d@e", "'https://hub/x' and http://c/d@e"),
        ("hf://imdb@main/a", "hf://imdb@main/a"),
        ("hf://user:55w@org/name", "hf://org/name"),
        ("file:///data/part-?.jsonl", "file:///data/part-?.jsonl"),
        ("b'Bearer 55w'", "b'Bearer ***'"),
        (f"token hf_{'a' * 30}.", "token ***."),
        ("/data/part-?.jsonl", "/data/part-?.jsonl"),
        ("s3://bucket/part-?.jsonl and hf://a/b/?.csv", "s3://bucket/part-?.jsonl and hf://a/b/?.csv"),
        ("hf://a/b/c.csv?token=55w", "hf://a/b/c.csv"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:p@55w@huggingface.co/org/rows",
        "HTTPS://user:p@55w@huggingface.co/org/rows",
        "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=55w",
        "hf://user:55w@org/rows",
        "s3://key:p@55w@bucket/x",
        "ftp://user:55w@host/x",
    ],
)
@pytest.mark.parametrize("config", ["", "main"])
def test_a_secret_in_a_pasted_address_is_not_repeated(tmp_path: Path, uri: str, config: str) -> None:
    with pytest.raises(UserError) as caught:
        initialize_dataset(uri, str(tmp_path), config=config)
    assert "55w" not in str(caught.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HF_ENDPOINT"])
def test_a_password_in_the_environment_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv(variable, "http://user:p@55w@127.0.0.1:9")
    huggingface_hub.close_session()
    with pytest.raises(UserError) as caught:
        initialize_dataset("org/rows", str(tmp_path))
    assert "55w" not in str(caught.value) + "".join(capfd.readouterr())


def test_a_password_in_the_endpoint_is_not_repeated_when_the_hub_refuses(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("://", "://user:p55w@"))
    with pytest.raises(UserError, match="which is no dataset on http://127") as caught:
        initialize_dataset("org/none", str(tmp_path))
    assert "55w" not in str(caught.value)
