"""A real gRPC server on loopback that speaks workerd's side of the contract, for one trainer. It keeps a job the way the control plane does, with
the package's own arithmetic, and can be told to misbehave."""

import hashlib
import threading
from concurrent import futures

import grpc

import raftgrid
from messages import rule_of
from raftgrid import _contribution, _crc32c, _frame, _sealed, shard_seed
from raftgrid._limits import CHUNK_BYTES_MAX
from raftgrid._proto import agent_pb2, agent_pb2_grpc, ml_pb2, ml_pb2_grpc

TOKEN = "a-token"
OPTIONS = [("grpc.max_receive_message_length", 4 * CHUNK_BYTES_MAX), ("grpc.so_reuseport", 0)]


class FakeAgent(agent_pb2_grpc.AgentServiceServicer, ml_pb2_grpc.MLWorkerServiceServicer):
    """`faults[method]` is a list of functions that are called, one per call, with (self, context) before the method does its work."""

    def __init__(self, num_shards=2, rounds=2, seed=7):
        self.num_shards, self.rounds, self.seed = num_shards, rounds, seed
        self.models, self.state, self.rule = [], None, None
        self.shard_state = False
        self.behind = 0  # rounds that the model of a step is older than its round, as in bounded jobs
        self.states = {}
        self.ledger = {}
        self.accepted = 0
        self.results = []
        self.calls = []
        self.first_chunks = []
        self.model_requests = []
        self.faults = {}
        self.damage_chunk = None  # function(chunk) run over each model chunk that is sent
        self.old_contract = False
        self.names_files = False  # sealed files in place of streams
        self.opens_files = True
        self.says_it_opens_files = False  # before a process has seen one
        self.kept_files = []
        self.place_of = lambda file: file.place
        self.streamed_bytes = 0
        self.stop = False
        self.lock = threading.Lock()
        self.server = None
        self.port = 0

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=OPTIONS)
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self.server)
        ml_pb2_grpc.add_MLWorkerServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        assert self.port != 0
        self.server.start()
        return self

    def halt(self):
        self.server.stop(grace=None).wait()

    def _enter(self, name, context):
        self.calls.append(name)
        if dict(context.invocation_metadata()).get("raftgrid-token") != TOKEN:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
        queue = self.faults.get(name)
        if queue:
            queue.pop(0)(self, context)

    def Hello(self, request, context):
        self._enter("Hello", context)
        return agent_pb2.HelloResponse(
            job_id="job-1",
            task_id="task-1",
            attempt=1,
            num_shards=self.num_shards,
            rounds=self.rounds,
            seed=self.seed,
            config_json='{"n": 3}',
            init_task=True,
            opens_files=self.says_it_opens_files,
            node_id="node-1",
        )

    def SetResult(self, request, context):
        self._enter("SetResult", context)
        self.results.append(request.result_json)
        return agent_pb2.SetResultResponse()

    def ShouldStop(self, request, context):
        self._enter("ShouldStop", context)
        return agent_pb2.ShouldStopResponse(stop=self.stop, reason="drained")

    def _collect(self, chunks):
        """(first chunk, file) after every check that the contract asks for."""
        first, data = None, bytearray()
        for chunk in chunks:
            assert len(chunk.data) <= CHUNK_BYTES_MAX
            assert chunk.offset == len(data)
            self.streamed_bytes += len(chunk.data)
            assert chunk.crc32c == _crc32c.crc32c(chunk.data)
            first = first or chunk
            data += chunk.data
        assert first.total_bytes == len(data)
        assert first.digest == hashlib.sha256(data).digest()
        return first, bytes(data)

    def InitModel(self, request_iterator, context):
        self._enter("InitModel", context)
        first, data = self._collect(request_iterator)
        assert first.optimizer.algorithm and first.numeric_class
        with self.lock:
            if self.models:
                same = self.models[0] == data
                return ml_pb2.Ack(success=same, outcome=ml_pb2.ACK_DUPLICATE if same else ml_pb2.ACK_MISMATCH, reason="model 0")
            self.models.append(data)
            self.rule = rule_of(first)
        return ml_pb2.Ack(success=True, position=1)

    def NextShards(self, request, context):
        self._enter("NextShards", context)
        with self.lock:
            version = len(self.models) - 1
            answer = ml_pb2.NextShardsResponse(
                rounds=self.rounds,
                rounds_committed=version,
                model_version=version,
                has_model=True,
                shard_state=self.shard_state,
            )
            if version >= self.rounds:
                answer.finished = True
                return answer
            over = max(version - self.behind, 0)
            digest = hashlib.sha256(self.models[over]).digest()
            for shard in range(self.num_shards):
                if shard not in self.ledger:
                    seed = shard_seed(self.seed, version, shard)
                    answer.steps.add(
                        round=version,
                        shard=shard,
                        num_shards=self.num_shards,
                        seed=seed,
                        model_version=over,
                        model_digest=digest,
                        state_artifact=self.states.get((version - 1, shard), ""),
                    )
            return answer

    def GetModel(self, request, context):
        self._enter("GetModel", context)
        self.model_requests.append((request.version if request.version_given else None, request.offset))
        version = request.version if request.version_given else len(self.models) - 1
        data = self.models[version]
        if self.names_files and "raftgrid-file" in dict(context.invocation_metadata()):
            file = _sealed.Sealed([data])
            self.kept_files.append(file)
            context.send_initial_metadata((("raftgrid-file", self.place_of(file)),))
            chunk = ml_pb2.ModelChunk(version=version, total_bytes=len(data), digest=hashlib.sha256(data).digest())
            if self.damage_chunk is not None:
                self.damage_chunk(chunk, context)
            yield chunk
            return
        if self.old_contract:
            for number, start in enumerate(range(0, len(data), 1000)):
                yield ml_pb2.ModelChunk(chunk_id=number, data=data[start : start + 1000])
            return
        for offset in range(request.offset, len(data), CHUNK_BYTES_MAX):
            part = data[offset : offset + CHUNK_BYTES_MAX]
            chunk = ml_pb2.ModelChunk(data=part, offset=offset, crc32c=_crc32c.crc32c(part))
            if offset == request.offset:
                chunk.version, chunk.total_bytes, chunk.digest = version, len(data), hashlib.sha256(data).digest()
            if self.damage_chunk is not None:
                self.damage_chunk(chunk, context)
            yield chunk

    def SendGradients(self, request_iterator, context):
        self._enter("SendGradients", context)
        place = dict(context.invocation_metadata()).get("raftgrid-file")
        if place is None:
            first, data = self._collect(request_iterator)
        elif self.opens_files:
            (first,) = list(request_iterator)
            assert not first.data
            data = bytes(_sealed.read(place, first.total_bytes))
        else:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "raftgrid-file: it is of another namespace")
        self.first_chunks.append(first)
        ack = self._accept(first, data)
        queue = self.faults.get("after SendGradients")
        if queue:
            queue.pop(0)(self, context)
        return ack

    def _accept(self, first, data):
        with self.lock:
            if first.round != len(self.models) - 1:
                return ml_pb2.Ack(outcome=ml_pb2.ACK_STALE, reason="the round is closed")
            before = self.ledger.get(first.shard)
            if before is not None:
                same = before[1] == data
                return ml_pb2.Ack(success=same, outcome=ml_pb2.ACK_DUPLICATE if same else ml_pb2.ACK_MISMATCH)
            try:
                _contribution.decode(_frame.from_bytes(self.models[-1]), data)
            except raftgrid.FrameError as error:
                return ml_pb2.Ack(outcome=ml_pb2.ACK_REJECTED, reason=str(error))
            self.ledger[first.shard] = (first.weight, data)
            self.states[first.round, first.shard] = first.state_artifact
            self.accepted += 1
            if len(self.ledger) == self.num_shards:
                in_order = [self.ledger[shard] for shard in sorted(self.ledger)]
                model, self.state = self.rule.next_model(self.models[-1], self.state, in_order, first.round)
                self.models.append(model)
                self.ledger = {}
            return ml_pb2.Ack(success=True, position=42)


def fail(code, details=""):
    """A fault: the call ends with this status."""

    def raise_it(_agent, context):
        context.abort(code, details)

    return raise_it
