"""What each pod of a training with transformers on a cluster runs."""

from kfp_finetune.components.transformers_train.train import WORKER
from kfp_finetune.training.node import main

if __name__ == "__main__":
    main(WORKER)
