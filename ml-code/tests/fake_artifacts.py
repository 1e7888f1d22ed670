"""ArtifactService on a fake replica of `fake_keys`: names are given once; a transfer may be cut or damaged."""

import hashlib

import grpc

from raftgrid._crc32c import crc32c
from raftgrid._limits import CHUNK_BYTES_MAX
from raftgrid._proto import artifact_pb2, artifact_pb2_grpc


class Store:
    """What all replicas share."""

    def __init__(self):
        self.by_id = {}
        self.names = {}
        self.kinds = []
        self.puts = 0
        self.cuts = []  # offsets behind which a download breaks, once each
        self.offsets = []  # that downloads began at
        self.damage = 0  # downloads whose first chunk is changed


class Service(artifact_pb2_grpc.ArtifactServiceServicer):
    """One replica's."""

    def __init__(self, replica, store):
        self.replica, self.store = replica, store

    def Put(self, request_iterator, context):
        self.replica.check(context)
        first, data = None, bytearray()
        for chunk in request_iterator:
            assert len(chunk.data) <= CHUNK_BYTES_MAX and chunk.offset == len(data) and chunk.crc32c == crc32c(chunk.data)
            first = first or chunk
            data += chunk.data
        store, data = self.store, bytes(data)
        assert first.total_bytes == len(data) and first.digest == hashlib.sha256(data).digest() and first.request_id
        store.puts += 1
        known = store.names.get(first.name) if first.name else None
        if known and store.by_id[known] != data:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the name {first.name} belongs to an artifact with other content")
        if not known:
            known = str(100 + len(store.kinds))
            store.by_id[known] = data
            store.kinds.append(first.kind)
            if first.name:
                store.names[first.name] = known
        self.replica.lose_answer(context)
        return artifact_pb2.PutArtifactResponse(artifact_id=known, digest=first.digest)

    def Delete(self, request, context):
        self.replica.check(context)
        assert request.request_id
        if request.artifact not in self.store.by_id:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no artifact {request.artifact}")
        del self.store.by_id[request.artifact]
        self.store.names = {name: known for name, known in self.store.names.items() if known != request.artifact}
        self.replica.lose_answer(context)
        return artifact_pb2.DeleteArtifactResponse(artifact_id=request.artifact)

    def Stat(self, request, context):
        self.replica.check(context)
        return artifact_pb2.StatArtifactResponse(found=request.artifact in self.store.names or request.artifact in self.store.by_id)

    def Get(self, request, context):
        self.replica.check(context)
        store = self.store
        known = store.names.get(request.artifact, request.artifact)
        if known not in store.by_id:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no artifact {request.artifact}")
        data = store.by_id[known]
        store.offsets.append(request.offset)
        for offset in range(request.offset, max(1, len(data)), CHUNK_BYTES_MAX):
            if store.cuts and offset >= store.cuts[0]:
                store.cuts.pop(0)
                context.abort(grpc.StatusCode.UNAVAILABLE, "moved")
            part = data[offset : offset + CHUNK_BYTES_MAX]
            chunk = artifact_pb2.ArtifactChunk(data=part, offset=offset, crc32c=crc32c(part))
            if offset == request.offset:
                chunk.total_bytes, chunk.digest, chunk.artifact_id = len(data), hashlib.sha256(data).digest(), known
            if store.damage:
                store.damage -= 1
                chunk.data = b"\x00" + part[1:] if part[:1] != b"\x00" else b"\x01" + part[1:]
            yield chunk
