"""DoRA's magnitudes, where torchtune 0.6.1 sets them wrongly or cannot set them."""

import torch
from torch.distributed.tensor import DTensor
from torchtune.modules.peft import DoRALinear


def mend_magnitudes(resumes: bool) -> None:
    """Lets the recipes set the magnitudes of a new training alone, and of weights in four bits too.

    A recipe calls `initialize_dora_magnitude` whenever it has loaded a model. When it goes on from an epoch, that
    would throw the trained magnitudes away. And four-bit weights that several processes share know no norm.

    Args:
        resumes: Whether the training goes on from an epoch.
    """
    DoRALinear.initialize_dora_magnitude = _keep if resumes else _set_to_norms


def _keep(layer: DoRALinear) -> None:
    """The magnitudes are those of the epoch."""


@torch.no_grad()
def _set_to_norms(layer: DoRALinear) -> None:
    """Each row's magnitude is the norm of the base weight's row, as the adapter is zero to begin with.

    Liu et al., 2024, DoRA: Weight-Decomposed Low-Rank Adaptation, section 4. Rows are shared out to the processes, so
    that each sets its own.
    """
    weight, magnitude = _own(layer.weight), _own(layer.magnitude)
    magnitude.copy_(torch.linalg.norm(weight.to(magnitude.dtype), dim=1))


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
