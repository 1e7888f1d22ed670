"""A client of the first generation: it knows the old messages only. It completes one task and every shard of one train job's rounds.

Stubs are made from old.proto and old_api.proto at run time, so nothing that raftgrid added can slip in.
"""
from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
from safetensors.numpy import load, save

sys.path.insert(0, str(Path(__file__).parent))
old, old_rpc = grpc.protos_and_services("old.proto")
api, api_rpc = grpc.protos_and_services("old_api.proto")

NODE = "old-1"
PATIENCE_S = 60.0


def wait_for(what: str, look):  # noqa: ANN001, ANN201 - whatever `look` gives
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise SystemExit(f"never came: {what}")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--endpoint", required=True)
    options.add_argument("--job", required=True)
    options.add_argument("--shards", type=int, default=1)
    options.add_argument("--rounds", type=int, default=2)
    given = options.parse_args()
    channel = grpc.insecure_channel(given.endpoint)
    tasks, nodes = old_rpc.TaskServiceStub(channel), old_rpc.NodeServiceStub(channel)
    models = api_rpc.MLWorkerServiceStub(channel)

    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.2):
            nodes.Heartbeat(old.HeartbeatRequest(node_id=NODE, cpu_usage=0.1, memory_usage=0.1), timeout=10)

    threading.Thread(target=beat, daemon=True).start()

    def poll(task_type: str):  # noqa: ANN202
        answer = nodes.PollTask(old.PollTaskRequest(node_id=NODE), timeout=10)
        return answer.task if answer.has_task and answer.task.task_type == task_type else None

    trainer = wait_for("the train task", lambda: poll("train"))
    print("train task", trainer.task_id, flush=True)

    def get_model() -> bytes:
        return b"".join(chunk.data for chunk in models.GetModel(api.ModelRequest(), timeout=30))

    def next_model(seen: bytes | None):  # noqa: ANN202
        model = get_model()
        return model if model != seen else None

    def push(gradient: bytes) -> bool:
        half = len(gradient) // 2
        chunks = [
            api.GradientChunk(job_id=given.job, worker_id=NODE, data=gradient[:half]),
            api.GradientChunk(job_id=given.job, worker_id=NODE, data=gradient[half:]),
        ]
        return models.SendGradients(iter(chunks), timeout=30).success

    model = None
    for number in range(given.rounds):
        model = wait_for("the next model", lambda: next_model(model))
        for shard in range(given.shards):
            if shard > 0:
                # It asks for the model before each piece of work; that is how new work is told from a retry.
                assert get_model() == model
            gradient = save({name: np.full_like(value, 1 + shard) for name, value in load(model).items()})
            if not push(gradient):
                raise SystemExit("a gradient was refused")
            print("gradient acknowledged", number, shard, flush=True)
            if number == 0:
                # The answer was lost, as far as this client can tell: it sends the same bytes again, and they are not counted twice.
                print("sent again:", push(gradient), flush=True)
    nodes.ReportTaskResult(
        old.ReportTaskResultRequest(task_id=trainer.task_id, final_status=old.COMPLETED, result_data="{}"), timeout=30
    )

    submitted = tasks.SubmitTask(old.SubmitTaskRequest(task_type="old-work", task_data=b'{"x": 1}'), timeout=30)
    assert submitted.success, submitted.error_message
    task = wait_for("the task", lambda: poll("old-work"))
    assert task.task_id == submitted.task_id and task.task_data == b'{"x": 1}'
    report = old.ReportTaskResultRequest(task_id=task.task_id, final_status=old.COMPLETED, result_data='{"y": 2}')
    assert nodes.ReportTaskResult(report, timeout=30).acknowledged
    found = tasks.GetTask(old.GetTaskRequest(task_id=task.task_id), timeout=30)
    assert found.found and found.task.status == old.COMPLETED and found.task.result_data == '{"y": 2}'
    print("task COMPLETED", flush=True)
    done.set()


if __name__ == "__main__":
    main()
