"""What a user asks of an export is read, and refused in words, before anything is trained."""

from typing import Any

import pytest

from kfp_finetune.client.checks.values import check_local
from kfp_finetune.training.exporting import ExportSettings, check_export, read_export_settings

SIZES = {
    "5GB": 5 * 10**9,
    "2GiB": 2 * 2**30,
    "1.5 MB": 1_500_000,
    " 1000KB ": 10**6,
    "1TB": 10**12,
    "2000000": 2_000_000,
    1_048_576: 1_048_576,
    2e9: 2 * 10**9,
}
REFUSED = {
    "no object": ("int8", "export", 'an object such as {"max_shard_size"'),
    "an unknown name": ({"quantise": "int8"}, "export.quantise", "max_shard_size, quantize, max_perplexity_increase"),
    "other bits": ({"quantize": "int2"}, "export.quantize", "'int8' or 'int4'"),
    "no size": ({"max_shard_size": "5 gigs"}, "export.max_shard_size", 'such as "500MB", "5GB" or "2GiB"'),
    "a negative size": ({"max_shard_size": "-5GB"}, "export.max_shard_size", "a number of bytes"),
    "a size of another kind": ({"max_shard_size": True}, "export.max_shard_size", "a valid integer"),
    "a size that is too small": ({"max_shard_size": "10KB"}, "export.max_shard_size", "1000000"),
    "a text for a bound": (
        {"quantize": "int8", "max_perplexity_increase": "5%"},
        "export.max_perplexity_increase",
        "a valid number",
    ),
    "a bound below none": (
        {"quantize": "int8", "max_perplexity_increase": -0.1},
        "export.max_perplexity_increase",
        "greater than or equal to 0",
    ),
    "a bound on nothing": ({"max_perplexity_increase": 0.1}, "export.max_perplexity_increase", "with export.quantize"),
}


@pytest.mark.parametrize("given", SIZES, ids=repr)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(given: Any):
    settings, problems = read_export_settings({"max_shard_size": given})
    assert not problems and settings.max_shard_size == SIZES[given]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("pipeline", ["torchtune-finetune", "transformers-finetune"])
def test_what_cannot_be_is_refused_by_the_step_and_the_client_alike(name: str, pipeline: str):
    given, what, allowed = REFUSED[name]
    (problem,) = check_export(given)
    assert problem.what == what and allowed in problem.allowed
    assert problem in check_local({"export": given}, pipeline)


def test_only_a_causal_language_model_has_a_perplexity_that_proves_a_copy():
    (problem,) = check_export({"quantize": "int8"}, "AutoModelForMaskedLM")
    assert problem.given == "int8, with AutoModelForMaskedLM" and "its perplexity" in problem.allowed
    assert not check_export({"max_shard_size": "5GB"}, "AutoModelForMaskedLM")
    values = {"export": {"quantize": "int8"}, "transformer_type": "AutoModelForMaskedLM"}
    assert problem in check_local(values, "transformers-finetune")


@pytest.mark.parametrize(("bits", "bound"), [("int8", 0.02), ("int4", 0.1)])
def test_a_default_is_the_same_as_saying_it(bits: str, bound: float):
    settings = read_export_settings({"quantize": bits})[0]
    assert settings.are_those_of({"quantize": bits, "max_perplexity_increase": bound, "parameters": 7})
    assert not settings.are_those_of({}) and not settings.are_those_of({**settings.facts, "max_shard_size": 10**9})
    assert ExportSettings().are_those_of({"parameters": 7}) and not ExportSettings().are_those_of(settings.facts)


def test_the_room_for_other_files_and_a_copy_is_counted():
    assert ExportSettings().bytes_beside(1000) == 0
    assert ExportSettings(max_shard_size=10**6).bytes_beside(1000) == 1000
    assert ExportSettings(quantize="int4").bytes_beside(1000) == 550
    assert ExportSettings(max_shard_size=10**6, quantize="int8").bytes_beside(1000) == 1650
