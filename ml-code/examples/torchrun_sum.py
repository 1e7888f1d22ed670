"""Each process brings its rank; all of them must see the same sum."""

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
value = torch.tensor([float(rank)])
dist.all_reduce(value)
assert value.item() == world * (world - 1) / 2, value
print(f"rank {rank} of {world}: the sum of all ranks is {value.item():.0f}")
dist.destroy_process_group()
