"""What the common GPUs of data centres have: memory, and operations a second.

Memory is what the driver says that there is (nvidia-smi, and so the label `nvidia.com/gpu.memory` of NVIDIA's GPU
feature discovery), which is less than the name says where error correction takes its share. Peaks are those of NVIDIA's
data sheets without sparsity, for which the sheets of Hopper, Blackwell and Ada are halved: A100 (2021), A10, A10G, A30,
A40, H100 (2023: SXM, PCIe, NVL), H200, HGX B200, L4, L40, L40S and T4; of the workstations' GPUs, the white papers on
GA102 and Ada, with sums in fp32. Left out are GPUs that CUDA 13, with which torch comes, no longer runs on (V100), and
those of other makers, for which the images are not built.
"""

from dataclasses import dataclass
from typing import Literal

PRODUCT_LABEL, MEMORY_LABEL = "nvidia.com/gpu.product", "nvidia.com/gpu.memory"
"""Labels of a node: what its GPUs are called, and the MiB that each has."""

SHARED = "-SHARED"
"""Ending of a product's name where pods take turns on a GPU."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Args:
        name: As people call it.
        products: The values of `PRODUCT_LABEL` that mean it.
        memory_mib: Its memory.
        bf16_tflops: Peak of its tensor cores in bf16; None if they have no bf16.
        fp32_tflops: Peak in fp32, without tensor cores: torch does not round to TF32 unless told to.
    """

    name: str
    products: tuple[str, ...]
    memory_mib: int
    bf16_tflops: float | None
    fp32_tflops: float

    @property
    def memory_gib(self) -> float:
        """Its memory."""
        return self.memory_mib / 1024

    def tflops(self, dtype: Literal["bf16", "fp32"]) -> float | None:
        """Its peak, or None if it does not compute in that dtype.

        Args:
            dtype: Of the matrices.
        """
        return self.bf16_tflops if dtype == "bf16" else self.fp32_tflops


GPUS = (
    Gpu("T4", ("Tesla-T4",), 15_360, None, 8.1),
    Gpu("A10G", ("NVIDIA-A10G",), 23_028, 70, 31.5),
    Gpu("A10", ("NVIDIA-A10",), 23_028, 125, 31.2),
    Gpu("L4", ("NVIDIA-L4",), 23_034, 121, 30.3),
    Gpu("RTX 4090", ("NVIDIA-GeForce-RTX-4090",), 24_564, 165.2, 82.6),
    Gpu("A30", ("NVIDIA-A30",), 24_576, 165, 10.3),
    Gpu("RTX 3090", ("NVIDIA-GeForce-RTX-3090",), 24_576, 71, 35.6),
    Gpu("A100 40GB", ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"), 40_960, 312, 19.5),
    Gpu("A40", ("NVIDIA-A40",), 46_068, 149.7, 37.4),
    Gpu("L40", ("NVIDIA-L40",), 46_068, 181, 90.5),
    Gpu("L40S", ("NVIDIA-L40S",), 46_068, 362, 91.6),
    Gpu("RTX A6000", ("NVIDIA-RTX-A6000",), 49_140, 154.8, 38.7),
    Gpu("H100 PCIe", ("NVIDIA-H100-PCIe",), 81_559, 756, 51),
    Gpu("H100", ("NVIDIA-H100-80GB-HBM3",), 81_559, 989, 67),
    Gpu("A100 80GB", ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"), 81_920, 312, 19.5),
    Gpu("H100 NVL", ("NVIDIA-H100-NVL",), 95_830, 835, 60),
    Gpu("H200", ("NVIDIA-H200",), 143_771, 989, 67),
    Gpu("B200", ("NVIDIA-B200",), 183_359, 2250, 75),
)
"""By memory, the smallest first."""


def find_gpu(product: str) -> Gpu | None:
    """The GPU that a node's label names, or None if it is not known or is a part of one.

    Args:
        product: The label's value.
    """
    whole = product.removesuffix(SHARED)
    return next((gpu for gpu in GPUS if whole in gpu.products), None)
