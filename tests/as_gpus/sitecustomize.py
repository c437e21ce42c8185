"""On PYTHONPATH: `accelerate` shards the weights over processes of a CPU too, which it offers to GPUs alone (FSDP 2).

PyTorch's FSDP itself works on a CPU, by gloo; what is put in here is the kind of machine that `accelerate` believes it is on.
"""

import os

if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    from accelerate.state import DistributedType, PartialState

    found = PartialState.__init__

    def as_gpus(self, *args, **kwargs):
        """What was found, with processes of a CPU counted as those of GPUs."""
        found(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = as_gpus
