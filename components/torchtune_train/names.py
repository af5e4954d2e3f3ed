"""Dotted names of what torchtune's configuration calls."""

ROOM = "kfp_finetune.components.torchtune_train"
"""Where the functions and classes of our own lie."""

CHUNKED_LOSS = "torchtune.modules.loss.CEWithChunkedOutputLoss"
"""The loss that takes the least memory: logits in several parts."""

SCHEDULERS = {
    "cosine": f"{ROOM}.schedules.get_cosine_schedule_with_warmup",
    "linear": f"{ROOM}.schedules.get_linear_schedule_with_warmup",
    "constant": f"{ROOM}.schedules.get_constant_schedule_with_warmup",
}
"""By the setting's value, the function that makes it."""

PREFERENCE_LOSSES = {"dpo": "torchtune.rlhf.loss.DPOLoss", "rso": "torchtune.rlhf.loss.RSOLoss"}
"""Losses of pairs of answers, by the setting's value."""
