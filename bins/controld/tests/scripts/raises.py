"""Raises after the first model was loaded."""
import numpy as np

import raftgrid

job = raftgrid.init()
params = {"w": np.zeros(2, dtype=np.float32)}
job.init_model(params, optimizer=raftgrid.SGD(lr=0.1))
for step in job.rounds():
    step.load(params)
    raise ValueError("the data are not there")
