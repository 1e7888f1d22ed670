"""Replicas that share one table of keys, over real gRPC on 127.0.0.1; each may be stopped. What KvService promises, without Raft."""

from concurrent import futures
import threading

import grpc

import fake_artifacts
from raftgrid._proto import artifact_pb2_grpc, kv_pb2, kv_pb2_grpc


class Table:
    """The keys, and the answers to requests: a repeated one is not executed again."""

    def __init__(self):
        self.lock = threading.Condition()
        self.rows = {}
        self.position = 0
        self.answers = {}
        self.stale_epochs = set()
        self.writers = []


class _Service(kv_pb2_grpc.KvServiceServicer):
    def __init__(self, replica):
        self.replica = replica

    def _write(self, request, context, change):
        self.replica.check(context)
        table = self.replica.table
        with table.lock:
            if request.lease_epoch in table.stale_epochs:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "STALE_LEASE: not open")
            table.writers.append((request.task_id, request.lease_epoch, getattr(request, "job_id", "")))
            assert request.request_id
            if request.request_id not in table.answers:
                table.position += 1
                table.answers[request.request_id] = change(table)
                table.lock.notify_all()
            answer = table.answers[request.request_id]
        self.replica.lose_answer(context)
        return answer

    def Add(self, request, context):
        def change(table):
            table.rows[request.key] = (request.data, table.position)
            return kv_pb2.AddResponse(revision=table.position)

        return self._write(request, context, change)

    def CompareAndSet(self, request, context):
        def change(table):
            data, revision = table.rows.get(request.key, (b"", 0))
            if revision != request.expected:
                return kv_pb2.CompareAndSetResponse(found=revision != 0, data=data, revision=revision)
            table.rows[request.key] = (request.data, table.position)
            return kv_pb2.CompareAndSetResponse(swapped=True, found=True, data=request.data, revision=table.position)

        return self._write(request, context, change)

    def Delete(self, request, context):
        def change(table):
            return kv_pb2.DeleteResponse(deleted=table.rows.pop(request.key, None) is not None)

        return self._write(request, context, change)

    def Get(self, request, context):
        self.replica.check(context)
        with self.replica.table.lock:
            data, revision = self.replica.table.rows.get(request.key, (b"", 0))
        return kv_pb2.GetResponse(found=revision != 0, data=data, revision=revision)

    def Watch(self, request, context):
        self.replica.check(context)
        table = self.replica.table
        with table.lock:
            table.lock.wait_for(lambda: request.key in table.rows, timeout=request.timeout_seconds)
            if request.key in table.rows:
                data, revision = table.rows[request.key]
                yield kv_pb2.WatchResponse(data=data, revision=revision)


class Replica:
    """One server. `down`: it answers UNAVAILABLE with `hint`. `losses`: so many answers to writes get lost after they took effect."""

    def __init__(self, table, store=None):
        self.table = table
        self.down = False
        self.hint = ""
        self.losses = 0
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        kv_pb2_grpc.add_KvServiceServicer_to_server(_Service(self), self.server)
        if store is not None:
            artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(fake_artifacts.Service(self, store), self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def check(self, context):
        if self.down:
            context.abort(grpc.StatusCode.UNAVAILABLE, self.hint)

    def lose_answer(self, context):
        if self.losses > 0:
            self.losses -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer got lost")
