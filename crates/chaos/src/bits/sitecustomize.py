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
    from raftgrid._step import Step

    load, push, send_up = Step.load, Step.push, AgentBackend.push

    def load_then(self, *args, **kwargs):
        loaded = load(self, *args, **kwargs)
        reach("python.loaded")
        return loaded

    def push_between(self, *args, **kwargs):
        reach("python.before-push")
        pushed = push(self, *args, **kwargs)
        reach("python.pushed")
        return pushed

    def until_the_end(chunks):
        for chunk in chunks:
            yield chunk
            # What was given is on its way, the end of the stream is not.
            reach("python.uploading", pause_s=0.02)

    def send_slowly(self, *args, **kwargs):
        if not getattr(self, "sends_slowly", False):
            send = self._ml.SendGradients
            self._ml.SendGradients = lambda chunks, **named: send(until_the_end(chunks), **named)
            self.sends_slowly = True
        return send_up(self, *args, **kwargs)

    Step.load, Step.push, AgentBackend.push = load_then, push_between, send_slowly


# Of the other Python processes on a worker (the look at the interpreter) none trains.
if "RAFTGRID_AGENT" in os.environ:
    install()
