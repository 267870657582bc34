"""Train the tagger of torch_tagger.py on several processes with DistributedDataParallel.

    torchrun --nproc-per-node 2 examples/torch_ddp.py             # two processes of this machine, over gloo
    torchrun --nproc-per-node 2 examples/torch_ddp.py --quick
    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-endpoint HOST:29500 examples/torch_ddp.py    # of two machines

Each process takes its part of every batch; gloo sums the gradients (NCCL where there are GPUs, on which torch's own
layers run so far). Before training, process 0 compares the summed gradients of one batch with those of the whole batch
computed alone: the exit code is not 0 if they differ by more than rounding.
"""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist
from shared import make_parser
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch_tagger import Tagger, batches, read_sentences

import fusedrnn.torch as ft


def loss_of(model: nn.Module, letters: list[Tensor], capitals: list[Tensor], whole: int) -> Tensor:
    """Return the sum over letters, in units of the mean over the ``whole`` of the batch."""
    packed, target = batches(letters, capitals, len(letters), 0)[0]
    return functional.binary_cross_entropy_with_logits(model(packed), target, reduction="sum") / whole


def main() -> None:
    """Compare gradients, then train."""
    options = make_parser(__doc__, __file__).parse_args()
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    # Two processes on one machine share its cores.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])))

    torch.manual_seed(0)
    plain = Tagger(32 if options.quick else 64)
    ft.replace(plain)
    plain.to(device)
    model = DistributedDataParallel(plain)
    letters, capitals = ([t.to(device) for t in part] for part in read_sentences())
    if options.quick:
        letters, capitals = letters[::8], capitals[::8]

    def backward(start: int, module: nn.Module, mine: slice) -> Tensor:
        part = slice(start, start + 32)
        whole = sum(map(len, letters[part]))
        loss = loss_of(module, letters[part][mine], capitals[part][mine], whole)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    # DistributedDataParallel averages over the processes; the loss of each counts `size` times for the sum.
    shares = slice(rank, None, size)
    backward(0, model, shares)
    summed = [p.grad * size for p in plain.parameters() if p.grad is not None]
    plain.zero_grad()
    backward(0, plain, slice(None))
    alone = [p.grad for p in plain.parameters() if p.grad is not None]
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(summed, alone, strict=True))
    if rank == 0:
        print(f"Gradients of {size} processes and of one: {apart:.1e} apart, of the largest of each tensor")

    optimizer = torch.optim.Adam(plain.parameters(), lr=4e-3)
    began = time.perf_counter()
    for epoch in range(1 if options.quick else 3):
        order = torch.randperm(len(letters) // 32, generator=torch.Generator().manual_seed(epoch)).tolist()
        total = torch.zeros(1, device=device)
        for start in order:
            optimizer.zero_grad()
            total += backward(32 * start, model, shares)
            for p in plain.parameters():
                if p.grad is not None:
                    p.grad *= size
            optimizer.step()
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch + 1}  loss {float(total) / len(order):.3f}  {time.perf_counter() - began:.0f} s")
    dist.destroy_process_group()
    if apart > 1e-5:
        sys.exit("FAILED: the gradients should be the same")


if __name__ == "__main__":
    main()
