"""Addresses to publish at: all that is wrong with them at once, and no secret shown."""

import subprocess
import sys

import pytest

from kfp_finetune.components.export_model.publish.targets import (
    HubTarget,
    RegistryTarget,
    S3Target,
    check_targets,
    parse_targets,
)
from kfp_finetune.errors import UserError


def test_a_list_of_addresses_is_read() -> None:
    assert parse_targets("hf://org/name, s3://bucket/a/b/  hf://org/name@try%2Fone\ns3://bucket") == (
        HubTarget("hf://org/name", "org/name", "main"),
        S3Target("s3://bucket/a/b/", "bucket", "a/b"),
        HubTarget("hf://org/name@try%2Fone", "org/name", "try/one"),
        S3Target("s3://bucket", "bucket", ""),
    )
    assert parse_targets("") == ()
    assert parse_targets(
        "registry+http://host/A.b_c-1 REGISTRY+HTTPS://a.b-c.svc:8443/m registry+http://[::1]:80/m"
    ) == (
        RegistryTarget("registry+http://host/A.b_c-1", "http://host:80", "A.b_c-1"),
        RegistryTarget("REGISTRY+HTTPS://a.b-c.svc:8443/m", "https://a.b-c.svc:8443", "m"),
        RegistryTarget("registry+http://[::1]:80/m", "http://[::1]:80", "m"),
    )


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("hf://name", "lacks the organisation"),
        ("hf://org/name@", "hf://ORGANISATION/NAME"),
        ("hf://org/name/folder", "a whole repository is published"),
        ("hf://datasets/org/name", "a model repository"),
        (f"hf://org/name@{'a' * 40}", "no name of a branch"),
        ("hf://org/name@refs/pr/1", "no name of a branch"),
        ("hf://org/name@a..b", "no name of a branch"),
        ("hf://org/name@-d", "no name of a branch"),
        ("s3://", "BUCKET"),
        ("s3://Bucket/prefix", "no name of a bucket"),
        ("s3://bucket//prefix", "no prefix"),
        ("s3://bucket/a/../b", "no prefix"),
        ("s3://bucket/*", "no prefix"),
        ("registry+http://", "no host"),
        ("registry+http:///name", "no host"),
        ("registry+http://host:0/name", "no host"),
        ("registry+http://host:65536/name", "no host"),
        ("registry+http://host:/name", "no host"),
        ("registry+http://ho_st/name", "no host"),
        ("registry+http://-host/name", "no host"),
        ("registry+http://host", "no name of a registered model"),
        ("registry+http://host/", "no name of a registered model"),
        ("registry+http://host/path/name", "no name of a registered model"),
        ("registry+http://host/name/", "no name of a registered model"),
        ("registry+http://host/.name", "no name of a registered model"),
        ("registry+http://host/name#x", "no name of a registered model"),
        (f"registry+http://host/{'n' * 101}", "no name of a registered model"),
        ("registry://host/name", "no kind of place"),
        ("registry+http://host/a registry+http://HOST:80/a", "the same place"),
        ("org/name", "no kind of place"),
        ("https://huggingface.co/org/name", "no kind of place"),
        ("hf://org/name hf://ORG/name@main", "the same place"),
        ("s3://bucket/p s3://bucket/p/", "the same place"),
    ],
)
def test_an_address_that_cannot_be_published_at_is_refused(address: str, complaint: str) -> None:
    (problem,) = check_targets(address)
    assert problem.what == "publish_to" and complaint in str(problem)


@pytest.mark.parametrize(
    "address",
    [
        "s3://KEY:hidden-secret@bucket/prefix",
        "s3://bucket/prefix?X-Amz-Signature=hidden-secret",
        "hf://user:hidden-secret@org/name",
        "hf://org/name@hf_hiddensecrethiddensecret",
        "registry+https://user:hidden-secret@host/name",
        "registry+http://host/name?token=hidden-secret",
    ],
)
def test_an_address_with_a_secret_is_refused_and_the_secret_not_shown(address: str) -> None:
    (problem,) = check_targets(address)
    assert "secret" in str(problem) and "hidden" not in str(problem)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parse_targets("hf://name s3://Bucket hf://org/fine ftp://host/x")
    assert len(caught.value.problems) == 3


def test_checking_addresses_needs_no_client_of_any_server() -> None:
    code = (
        "import sys; from kfp_finetune.components.export_model.publish.targets import check_targets as c; c('hf://a/b')"
    )
    code += (
        "; print([name for name in ('torch', 'boto3', 'huggingface_hub', 'httpx2', 'aiohttp') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
