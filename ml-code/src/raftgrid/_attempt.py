"""One attempt of a task on the pure-Python agent: its folder, its process group, its log, its end.

The process is started through a few lines of Python that tie it to the agent (it dies with it), set its limits and become the program. The
group is signalled only while its leader is not reaped, so that a number that was given away again is never hit.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import grpc

from ._attempt_log import Log, Pipe, feed
from ._limits import REASON_BYTES_MAX
from ._node import NODES, Held
from ._plane import Plane, PlaneUnavailable
from ._proto import artifact_pb2, artifact_pb2_grpc, task_pb2, types_pb2

ARTIFACTS = artifact_pb2_grpc.ArtifactServiceStub
EXIT_DATA = 65
EXIT_NO_INPUT = 66
EXIT_OS = 71
EXIT_TRY_AGAIN = 75
EXIT_TIMED_OUT = 124
EXIT_CANCELLED = 143
RUN_VARIABLE = "RAFTGRID_RUN"
"""In the environment of every process of an attempt: those that left its group are found by it."""

_log = logging.getLogger("raftgrid.agent")

# argv: the agent's process id, the limits as JSON, the program and its arguments. PR_SET_PDEATHSIG is 1.
_SHIM = """
import ctypes, json, os, resource, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("raftgrid: the agent is gone")
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for name, most, grace in json.loads(sys.argv[2]):
    kind = getattr(resource, name)
    ceiling = resource.getrlimit(kind)[1]
    top = (1 << 63) - 1 if ceiling == resource.RLIM_INFINITY else ceiling
    resource.setrlimit(kind, (min(most, top), min(most + grace, top)))
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except FileNotFoundError:
    print(f"raftgrid: program `{sys.argv[3]}` does not exist on this worker", file=sys.stderr)
    sys.exit(127)
except OSError as error:
    print(f"raftgrid: failed to run `{sys.argv[3]}`: {error}", file=sys.stderr)
    sys.exit(126)
"""


class Refused(Exception):
    """The task cannot be started."""

    def __init__(self, code: int, reason: str, node_failed: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.node_failed = node_failed


class Spawner:
    """The thread that starts all processes: the parent-death signal follows the *thread* that started a child, so this one never ends."""

    def __init__(self) -> None:
        self._orders: "queue.Queue[Tuple[Dict[str, Any], queue.Queue[Any]]]" = queue.Queue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            arguments, answer = self._orders.get()
            try:
                answer.put(subprocess.Popen(**arguments))
            except Exception as error:  # whatever a task's words made of it: this thread goes on
                answer.put(error)

    def start(self, **arguments: Any) -> "subprocess.Popen[bytes]":
        """`subprocess.Popen(**arguments)` by that thread."""
        answer: "queue.Queue[Any]" = queue.Queue()
        self._orders.put((arguments, answer))
        child = answer.get()
        if isinstance(child, Exception):
            raise child
        return child


def kill_run(variable: str, value: str) -> int:
    """Kills every process that has `variable=value` in its environment; gives how many were found."""
    wanted = f"{variable}={value}".encode()
    found = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                found += 1
        except OSError:
            pass  # gone, or another user's
    return found


def one_line(text: str) -> str:
    """The first line that says something, without control characters, of bounded length."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(c if c.isprintable() else " " for c in line).encode()[:REASON_BYTES_MAX].decode("utf-8", "ignore")


def _is_theirs(key: str, value: str) -> bool:
    """Whether a task may set this variable."""
    valid = bool(key) and "=" not in key and "\0" not in key + value
    return valid and not key.startswith("RAFTGRID_")


class Attempt(Held):
    """Runs one task; `exit` is set when nothing of it runs any more."""

    def __init__(self, agent: Any, task: Any) -> None:
        self.task = task
        self.id = (task.task_id, task.lease_epoch)
        self.renewed_at = agent.now()
        self.why: Optional[str] = None
        self.kill_at: Optional[float] = None
        self.running = False
        self._agent = agent
        self._plane: Plane = agent.plane
        self._lock = threading.Lock()
        self._child: Optional["subprocess.Popen[bytes]"] = None
        self._lost = False
        self._run = uuid.uuid4().hex
        self._folder: Path = agent.dir / "tasks" / f"{task.lease_epoch}-{hashlib.sha256(task.task_id.encode()).hexdigest()[:12]}"

    # What others ask of it.

    def stop(self, why: str, grace_s: float) -> None:
        """SIGTERM to the group; SIGKILL after the grace, by `advance`."""
        with self._lock:
            if self.why == "cancelled" or (self.why is not None and why != "cancelled"):
                return
            first = self.why is None
            self.why = why
            if first:
                self.kill_at = self._agent.now() + grace_s
                self._signal(signal.SIGTERM)

    def kill(self, why: str) -> None:
        """SIGKILL to the group, at once. Of a lease that is lost nothing is told to anybody any more."""
        with self._lock:
            if self.why != "revoked":
                self.why = why
            self._lost |= why in ("fenced", "revoked")
            self.kill_at = None
            self._signal(signal.SIGKILL)

    def advance(self, now: float, fence_after_s: float) -> None:
        """Whatever is due: the fence, the end of a grace."""
        if self.running and self.task.spec.on_disconnect != "continue" and now >= self.renewed_at + fence_after_s:
            if self.why != "fenced":
                _log.warning("task is fenced task_id=%s epoch=%d", *self.id)
            self.kill("fenced")
        elif self.kill_at is not None and now >= self.kill_at:
            self.kill(self.why or "stopped")

    def _signal(self, number: int) -> None:
        if self._child is not None:
            try:
                os.killpg(self._child.pid, number)
            except ProcessLookupError:
                pass  # its end is on its way

    # Its own thread.

    def run(self) -> None:
        """From the start to the report."""
        try:
            if not self._confirm_start():
                return
            try:
                code, reason, result, node_failed = self._process()
            except Refused as refused:
                code, reason, result, node_failed = refused.code, str(refused), "", refused.node_failed
            except (OSError, ValueError) as error:
                code, reason, result, node_failed = EXIT_OS, f"failed on this worker: {error}", "", True
            _log.info("task ended task_id=%s epoch=%d exit_code=%d reason=%s", *self.id, code, reason)
            self._report(code, reason, result, node_failed)
        finally:
            self._agent.forget(self)

    def _confirm_start(self) -> bool:
        request = task_pb2.StartTaskRequest(task_id=self.task.task_id, lease_epoch=self.task.lease_epoch)
        return self._until_told("StartTask", request)

    def _until_told(self, method: str, request: Any) -> bool:
        """Calls until there is an answer. False: the lease is somebody else's, or the answer will never be yes."""
        while not self._lost:
            try:
                self._plane.call(NODES, method, request)
                return True
            except PlaneUnavailable:
                continue
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    time.sleep(0.2)
                    continue
                _log.warning("call refused call=%s task_id=%s reason=%s", method, self.task.task_id, error.details())
                return False
        return False

    def _process(self) -> Tuple[int, str, str, bool]:
        argv, stdin, variables = self._plan()
        limits = self.task.spec.limits
        rlimits = [
            ("RLIMIT_DATA", limits.memory_bytes, 0),
            ("RLIMIT_CPU", limits.cpu_seconds, 2),
            ("RLIMIT_NOFILE", limits.open_files, 0),
            ("RLIMIT_FSIZE", limits.file_bytes, 0),
        ]
        shim = [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid())]
        shim.append(json.dumps([limit for limit in rlimits if limit[1]]))
        with self._lock:
            if self.why is not None:
                raise Refused(EXIT_CANCELLED, "stopped before it was started")
            child = self._agent.spawner.start(
                args=shim + argv,
                cwd=self._cwd,
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._child = child
            self.running = True
        threading.Thread(target=feed, args=(child.stdin, stdin), daemon=True).start()
        log = Log(self._plane, self.task)
        out, err = Pipe(child.stdout, log), Pipe(child.stderr, log)
        timed_out = self._wait(child)
        with self._lock:
            # The leader is a zombie still, so the number is this group's.
            self._signal(signal.SIGKILL)
            self._child = None
            self.running = False
        code = child.wait()
        kill_run(RUN_VARIABLE, self._run)
        out.join()
        err.join()
        self.log_artifact = "" if self._lost else log.end()
        code = 128 - code if code < 0 else code
        result = json.dumps({"exit_code": code, "stdout_tail": out.tail()})
        if timed_out and self.why is None:
            reason = f"ran longer than run_timeout_ms = {self.task.spec.run_timeout_ms}"
            return EXIT_TIMED_OUT, reason, result, False
        said = one_line((err.tail().strip().splitlines() or [""])[-1])
        if code > 128 and said:
            said = f"killed by signal {code - 128}; it said last: {said}"
        return code, said or f"exit code {code} without a word on stderr", result, code in (126, 127)

    def _wait(self, child: "subprocess.Popen[bytes]") -> bool:
        """Until the leader has ended, which is not reaped yet. True: it took too long."""
        timeout_ms = self.task.spec.run_timeout_ms
        deadline = self._agent.now() + timeout_ms / 1000 if timeout_ms else None
        late = False
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if deadline is not None and self._agent.now() >= deadline:
                deadline, late = None, True
                with self._lock:
                    self.kill_at = self._agent.now() + self._agent.stop_grace_s
                    self._signal(signal.SIGTERM)
            time.sleep(0.01)
        return late

    def _report(self, code: int, reason: str, result: str, node_failed: bool) -> None:
        if self._lost:
            return
        if self.why in ("drained", "fenced"):
            code, reason, result = EXIT_TRY_AGAIN, self.why, ""
        elif self.why == "cancelled":
            code, reason = EXIT_CANCELLED, self.why
        status = types_pb2.COMPLETED if code == 0 else types_pb2.FAILED
        request = task_pb2.ReportTaskResultRequest(
            task_id=self.task.task_id,
            lease_epoch=self.task.lease_epoch,
            final_status=status,
            result_data=result,
            exit_code=code,
            reason="" if code == 0 else one_line(reason),
            infrastructure=node_failed,
            log_artifact=getattr(self, "log_artifact", ""),
        )
        self._until_told("ReportTaskResult", request)

    # What the task asks for.

    def _plan(self) -> Tuple[List[str], str, Dict[str, str]]:
        spec = self.task.spec
        if spec.requirements or spec.requirements_file:
            raise Refused(EXIT_OS, "this agent makes no virtual environments; a workerd does", node_failed=True)
        try:
            data = json.loads(self.task.task_data or b"{}")
            environment = {str(key): str(value) for key, value in dict(data.get("env") or {}).items()}
            arguments = [str(word) for word in data.get("argv" if self.task.task_type == "command" else "args") or []]
        except (ValueError, TypeError, AttributeError) as error:
            raise Refused(EXIT_DATA, f"task_data is not the JSON that is expected: {error}") from error
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        code = self._bundle()
        self._cwd = code or self._folder
        variables = {key: value for key, value in os.environ.items() if not key.startswith("RAFTGRID_")}
        told = [(label.key, label.value) for label in spec.env] + list(environment.items())
        variables.update((key, value) for key, value in told if _is_theirs(key, value))
        if self.task.task_type == "python":
            arguments = [self._agent.python, str(self._script(data, code))] + arguments
            variables["PYTHONUNBUFFERED"] = "1"
            paths = [str(code) if code else "", variables.get("PYTHONPATH", "")]
            variables["PYTHONPATH"] = ":".join(path for path in paths if path)
        if not arguments:
            raise Refused(EXIT_DATA, "task_data: argv: the program is missing")
        if any("\0" in word for word in arguments):
            raise Refused(EXIT_DATA, "task_data: an argument has a zero byte")
        variables.update(
            {
                "RAFTGRID_TASK": self.task.task_id,
                "RAFTGRID_JOB": self.task.job_id,
                "RAFTGRID_ATTEMPT": str(self.task.attempt),
                "RAFTGRID_LEASE_EPOCH": str(self.task.lease_epoch),
                "RAFTGRID_NODE": self._agent.node_id,
                "RAFTGRID_DIR": str(self._folder),
                "RAFTGRID_ENDPOINTS": ",".join(self._agent.endpoints),
                "RAFTGRID_CONFIG": json.dumps(data.get("config") or {}),
                RUN_VARIABLE: self._run,
                self._agent.RUN_VARIABLE: str(self._agent.dir),
            }
        )
        return arguments, str(data.get("stdin") or ""), variables

    def _script(self, data: Dict[str, Any], code: Optional[Path]) -> Path:
        if bool(data.get("script")) == bool(data.get("code")):
            raise Refused(EXIT_DATA, "task_data: either script or code must be given")
        if data.get("code"):
            path = self._folder / "code.py"
            path.write_text(str(data["code"]))
            return path
        name = Path(str(data["script"]))
        if code is None and not name.is_absolute():
            raise Refused(EXIT_DATA, f"task_data: script `{name}` is no absolute path, and the task has no bundle")
        if code is not None and (name.is_absolute() or ".." in name.parts):
            raise Refused(EXIT_DATA, f"task_data: script `{name}` leaves the bundle")
        path = (code or Path("/")) / name
        if not path.is_file():
            raise Refused(EXIT_NO_INPUT, f"script `{name}` does not exist")
        return path

    def _bundle(self) -> Optional[Path]:
        artifact = self.task.spec.bundle_artifact
        if not artifact:
            return None
        data = self._fetch(artifact)
        target = self._folder / "code"
        target.mkdir()
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    parts = Path(member.name).parts
                    if not (member.isfile() or member.isdir()) or member.name.startswith("/") or ".." in parts:
                        raise Refused(EXIT_DATA, f"the bundle's `{member.name}` is neither a file nor a folder in it")
                    if member.isdir():
                        (target / member.name).mkdir(parents=True, exist_ok=True)
                        continue
                    path = target / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    source = archive.extractfile(member)
                    path.write_bytes(source.read() if source else b"")
                    path.chmod(0o755 if member.mode & 0o111 else 0o644)
        except tarfile.TarError as error:
            raise Refused(EXIT_DATA, f"the bundle is no tar: {error}") from error
        return target

    def _fetch(self, artifact: str) -> bytes:
        """An artifact, verified against its digest."""
        for _ in range(5):
            endpoint = self._plane.preferred
            parts, digest = [], b""
            try:
                stream = self._plane.stub(ARTIFACTS, endpoint).Get(
                    artifact_pb2.GetArtifactRequest(artifact=artifact), timeout=60
                )
                for chunk in stream:
                    digest = digest or chunk.digest
                    parts.append(chunk.data)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    raise Refused(EXIT_NO_INPUT, f"bundle {artifact} does not exist") from error
                self._plane.note(endpoint, error)
                time.sleep(0.2)
                continue
            data = b"".join(parts)
            if hashlib.sha256(data).digest() == digest:
                return data
        raise Refused(EXIT_TRY_AGAIN, f"bundle {artifact} could not be fetched")
