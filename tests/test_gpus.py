"""The table of GPUs, and the nodes' labels for them."""

from itertools import chain

from kfp_finetune.gpus import GPUS, find_gpu


def test_the_largest_memory_is_the_last_and_no_label_means_two_kinds():
    assert [gpu.memory_mib for gpu in GPUS] == sorted(gpu.memory_mib for gpu in GPUS)
    products = list(chain.from_iterable(gpu.products for gpu in GPUS))
    assert len(set(products)) == len(products)
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)


def test_peaks_are_of_dense_matrices():
    # The data sheets' large print is with sparsity, twice as much: 1979 for the H100, 733 for the L40S.
    peaks = {gpu.name: gpu.tflops("bf16") for gpu in GPUS}
    assert (peaks["H100"], peaks["L40S"], peaks["A100 80GB"], peaks["T4"]) == (989, 362, 312, None)
    assert all(gpu.tflops("fp32") for gpu in GPUS)


def test_a_gpu_is_found_by_its_label_shared_or_not_but_no_part_of_one():
    whole = find_gpu("NVIDIA-A100-SXM4-80GB")
    assert whole is not None and round(whole.memory_gib) == 80
    assert find_gpu("NVIDIA-A100-SXM4-80GB-SHARED") == whole
    assert find_gpu("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb") is None
    assert find_gpu("") is None
