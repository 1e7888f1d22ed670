"""An evaluation: reads the model that the job names (safetensors) and tells how large it is. A task of type `eval`."""

import os

import raftgrid
from safetensors.numpy import load_file


def main() -> None:
    job = raftgrid.init()
    model = load_file(os.environ["RAFTGRID_MODEL"])
    parameters = int(sum(tensor.size for tensor in model.values()))
    norm = float(sum((tensor.astype("float64") ** 2).sum() for tensor in model.values()) ** 0.5)
    job.log("look", tensors=len(model), parameters=parameters)
    job.result({"tensors": len(model), "parameters": parameters, "norm": norm})


if __name__ == "__main__":
    main()
