"""Python imports this at its start, in tasks of a run of raftgrid-chaos (crates/chaos/src/bits): a process kills itself at a named point if the
harness has laid an order for it into the folder `orders` beside this file. The job's script, its bundle and the package are what they are."""

import os
import signal
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def reach(point: str, pause_s: float = 0.0) -> None:
    """Ends this process as SIGKILL does, if it is the one to take the order."""
    try:
        # Of several processes one succeeds.
        os.rename(os.path.join(HERE, "orders", point), os.path.join(HERE, "taken", f"{point}.{os.getpid()}"))
    except OSError:
        return
    time.sleep(pause_s)
    os.kill(os.getpid(), signal.SIGKILL)


def install() -> None:
    from raftgrid._agent import AgentBackend
    from raftgrid._proto import ml_pb2
    from raftgrid._step import Step

    load, push, chunks = Step.load, Step.push, AgentBackend._chunks

    def load_then(self, *args, **kwargs):
        loaded = load(self, *args, **kwargs)
        reach("python.loaded")
        return loaded

    def push_between(self, *args, **kwargs):
        reach("python.before-push")
        pushed = push(self, *args, **kwargs)
        reach("python.pushed")
        return pushed

    def chunks_until(self, message, frame, first):
        for chunk in chunks(self, message, frame, first):
            yield chunk
            if message is ml_pb2.GradientChunk:
                # The chunk that was given is on its way, the end of the stream is not.
                reach("python.uploading", pause_s=0.02)

    Step.load, Step.push, AgentBackend._chunks = load_then, push_between, chunks_until


# Of the other Python processes on a worker (the look at the interpreter) none trains.
if "RAFTGRID_AGENT" in os.environ:
    install()
