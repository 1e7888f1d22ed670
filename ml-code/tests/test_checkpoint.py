"""Checkpoints: what a file holds, versions in a folder, and versions in a cluster under the task's lease."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import raftgrid
from fake_artifacts import Store
from fake_keys import Replica, Table
from raftgrid import _artifacts, _limits, _values, checkpoint
from raftgrid._plane import Plane, PlaneUnavailable

SOURCE = Path(raftgrid.__file__).parent.parent


def equal(left, right):
    if isinstance(left, (np.ndarray, np.generic)):
        return type(left) is type(right) and left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and left == right


def value():
    rng = np.random.default_rng(5)
    rng.standard_normal(3)
    return {
        "params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "none": np.zeros((0, 2), np.float16)},
        "state": {
            "rng": rng.bit_generator.state,  # whole numbers of 128 bits
            "optimizer": {"state": {0: {"step": np.float64(2.5)}, 1: {}}, "groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
            "text": "ä\n",
            "nothing": None,
            "yes": True,
            "raw": b"\x00\xff",
            "$": {"tensor": 0},
            "nan": np.array([np.nan, np.inf, -0.0]),
            "strided": np.arange(12, dtype=">i4").reshape(3, 4)[:, ::2],
        },
    }


def test_a_value_comes_back_as_it_was_and_the_same_value_gives_the_same_bytes():
    data = _values.pack(value(), {"version": "7"})
    found, metadata = _values.unpack(data)
    expected = value()
    expected["state"]["strided"] = expected["state"]["strided"].astype("<i4")
    assert equal(found, expected) and metadata == {"version": "7"}
    assert _values.pack(found, metadata) == data == _values.pack(value(), {"version": "7"})
    rng = np.random.default_rng()
    rng.bit_generator.state = found["state"]["rng"]
    again = np.random.default_rng(5)
    again.standard_normal(3)
    assert rng.random() == again.random()


def test_the_safetensors_package_opens_the_file_under_the_names_of_the_script(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(_values.pack(value(), {"version": "7"}))
    loaded = safetensors.numpy.load_file(path)
    assert loaded["params.w"].tolist() == [[0, 1, 2], [3, 4, 5]] and loaded["state.optimizer.state.0.step"] == 2.5
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata()["version"] == "7"


def test_what_cannot_be_kept_is_named_and_foreign_or_damaged_files_are_refused(tmp_path):
    for wrong, match in [
        ({"state": {"f": print}}, "`state.f` is a builtin_function"),
        ({"state": [1, {2}]}, "`state.1` is a set"),
        ({"x": np.array(["a"])}, "`x` has dtype <U1"),
        ({"x" * 2000: np.zeros(1)}, "more than 1024 bytes"),
    ]:
        with pytest.raises(raftgrid.FrameError, match=match):
            _values.pack(wrong, {})
    with pytest.raises(raftgrid.FrameError, match="raftgrid did not write it"):
        _values.unpack(safetensors.numpy.save({"a": np.zeros(3)}))
    data = _values.pack(value(), {})
    for length in (0, 7, 8, 100, len(data) - 1):
        with pytest.raises(raftgrid.FrameError):
            _values.unpack(data[:length])
    rng = np.random.default_rng(1)
    for _ in range(1000):
        torn = bytearray(data)
        for at in rng.integers(0, len(data), size=rng.integers(1, 4)):
            torn[at] ^= int(rng.integers(1, 256))
        try:
            _values.unpack(bytes(torn))  # a changed element is a value as well; the SHA-256 of the artifact is against that
        except raftgrid.FrameError:
            pass


def test_two_places_of_one_name_are_two_tensors():
    tricky = {"a": {"b": np.ones(1)}, "a.b": np.zeros(1), "": np.full(1, 2.0), "__metadata__": np.full(1, 3.0)}
    assert equal(_values.unpack(_values.pack(tricky, {}))[0], tricky)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAFTGRID_CHECKPOINTS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_versions_rise_the_newest_is_loaded_and_old_ones_go(folder):
    job = raftgrid.init()
    assert job.checkpoint.load() is None and job.checkpoint.load(version=3) is None
    params = {"w": np.zeros(2, np.float32)}
    for epoch in range(5):
        params["w"] += 1
        assert job.checkpoint.save(params, {"epoch": epoch}) == epoch + 1
    assert job.checkpoint.save({"w": np.zeros(1)}, name="other") == 1
    other = raftgrid.init()
    kept = params["w"]
    kept[:] = 0
    found = other.checkpoint.load(params)
    assert (found.version, found.state) == (5, {"epoch": 4}) and found.params is params and params["w"] is kept
    assert kept.tolist() == [5, 5]
    assert other.checkpoint.load(version=4).params["w"].tolist() == [4, 4]
    assert other.checkpoint.load(version=1) is None
    names = sorted(path.name for path in (folder / "checkpoint").iterdir())
    assert names == ["00000003.safetensors", "00000004.safetensors", "00000005.safetensors"]
    assert found.sha256 == hashlib.sha256((folder / "checkpoint" / names[2]).read_bytes()).hexdigest()


def test_misuse_of_checkpoints_is_named(folder):
    job = raftgrid.init()
    for name in ("", "../x", "a/b", ".hidden", "ä", "x" * 65):
        with pytest.raises(ValueError, match="name is"):
            job.checkpoint.save({}, name=name)
        with pytest.raises(ValueError, match="name is"):
            job.checkpoint.load(name=name)
    with pytest.raises(ValueError, match="keep is 0"):
        job.checkpoint.save({}, keep=0)
    job.checkpoint.save({"w": np.zeros(2)})
    target = {"w": np.ones(3)}
    with pytest.raises(raftgrid.FrameError, match="tensor `w` has shape"):
        job.checkpoint.load(target)
    assert target["w"].tolist() == [1, 1, 1]
    (folder / "checkpoint" / "00000009.safetensors").write_bytes(b"torn")
    with pytest.raises(raftgrid.FrameError, match="failed to read"):
        job.checkpoint.load()
    for what in (lambda: job.kv, lambda: job.artifact("x")):
        with pytest.raises(raftgrid.RaftgridError, match="needs a cluster"):
            what()


def test_threads_that_save_at_once_get_versions_of_their_own(folder):
    jobs = [raftgrid.init() for _ in range(4)]
    versions = []

    def save(number):
        for turn in range(5):
            versions.append(jobs[number].checkpoint.save({}, {"who": [number, turn]}, keep=100))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(versions) == list(range(1, 21))
    said = [tuple(jobs[0].checkpoint.load(version=version).state["who"]) for version in versions]
    assert len(set(said)) == 20


SCRIPT = """
import os, sys
import numpy as np
import raftgrid

job = raftgrid.init()
params, start = {"w": np.zeros(4)}, 0
rng = np.random.default_rng(job.seed)
found = job.checkpoint.load(params)
if found:
    start, rng.bit_generator.state = found.state["epoch"], found.state["rng"]
for epoch in range(start, 6):
    params["w"] += rng.standard_normal(4)
    if os.environ.get("DIE") == str(epoch):
        os._exit(9)
    job.checkpoint.save(params, {"epoch": epoch + 1, "rng": rng.bit_generator.state})
print(params["w"].tobytes().hex())
"""


def test_a_loop_that_dies_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    def run(folder, **more):
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "RAFTGRID_CHECKPOINTS": str(tmp_path / folder), **more}
        return subprocess.run([sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, timeout=120)

    whole = run("a")
    assert whole.returncode == 0, whole.stderr
    assert run("b", DIE="2").returncode == 9 and run("b", DIE="5").returncode == 9
    assert run("b").stdout == whole.stdout


@pytest.fixture
def cluster():
    table, store = Table(), Store()
    replicas = [Replica(table, store) for _ in range(3)]
    yield table, store, replicas
    for replica in replicas:
        replica.server.stop(None)


def shelf_of(cluster, monkeypatch, task="job/main", epoch=5):
    monkeypatch.setenv("RAFTGRID_TASK", task)
    monkeypatch.setenv("RAFTGRID_JOB", "job")
    monkeypatch.setenv("RAFTGRID_LEASE_EPOCH", str(epoch))
    plane = Plane([replica.address for replica in cluster[2]])
    return checkpoint.Checkpoints(checkpoint.ClusterShelf(task, plane))


def test_in_a_cluster_a_version_is_an_artifact_and_a_key_says_which_is_the_newest(cluster, monkeypatch):
    table, store, replicas = cluster
    kept = shelf_of(cluster, monkeypatch)
    assert kept.load() is None
    big = {"w": np.random.default_rng(1).standard_normal(400_000)}
    assert [kept.save(big, {"epoch": epoch}) for epoch in range(3)] == [1, 2, 3]
    assert set(store.names) == {"job/main/checkpoint/1", "job/main/checkpoint/2", "job/main/checkpoint/3"}
    assert set(store.kinds) == {"checkpoint"} and set(table.writers) == {("job/main", 5, "job")}
    said = json.loads(table.rows["checkpoint/job/main/checkpoint"][0])
    assert said["version"] == 3 and said["artifact"] == store.names["job/main/checkpoint/3"]
    # Another attempt, a replica that is down, a transfer that is cut and one that is damaged.
    replicas[0].down = True
    one = _limits.CHUNK_BYTES_MAX
    store.cuts, store.offsets = [one, 3 * one], []
    found = shelf_of(cluster, monkeypatch, epoch=6).load()
    assert (found.version, found.state) == (3, {"epoch": 2}) and np.array_equal(found.params["w"], big["w"])
    assert store.offsets == [0, one, 3 * one]  # it went on where it was
    store.damage, store.offsets = 1, []
    assert kept.load().state == {"epoch": 2} and store.offsets == [0, 0]  # from its start
    assert kept.load(version=1).state == {"epoch": 0} and kept.load(version=9) is None
    assert shelf_of(cluster, monkeypatch, task="job/other").load() is None


def test_an_attempt_that_lost_its_lease_does_not_make_its_checkpoint_the_newest(cluster, monkeypatch):
    table, store, _ = cluster
    old, new = shelf_of(cluster, monkeypatch, epoch=5), shelf_of(cluster, monkeypatch, epoch=6)
    assert old.save({}, "first") == 1
    table.stale_epochs.add(5)
    with pytest.raises(raftgrid.LeaseLost, match="STALE_LEASE"):
        old.save({}, "late")
    assert "job/main/checkpoint/2" in store.names  # its bytes are there, but nobody's newest
    assert new.load().state == "first"
    assert new.save({}, "second") == 3
    assert (new.load().version, new.load().state) == (3, "second")


def test_of_two_that_save_at_once_each_gets_a_version_and_the_key_ends_with_the_later(cluster, monkeypatch):
    table, store, _ = cluster
    one = shelf_of(cluster, monkeypatch)
    two = shelf_of(cluster, monkeypatch)
    put = _artifacts.put

    def while_others_save(*args):
        monkeypatch.setattr(_artifacts, "put", put)
        assert two.save({}, "two") == 1
        return put(*args)

    monkeypatch.setattr(_artifacts, "put", while_others_save)
    version = one.save({}, "one")
    assert version == 3 and one.load().state == "one"  # 2 went to bytes whose key another had changed
    assert two.load(version=1).state == "two"


def test_lost_answers_and_dead_replicas_do_not_make_versions_twice(cluster, monkeypatch):
    table, store, replicas = cluster
    kept = shelf_of(cluster, monkeypatch)
    replicas[0].losses = 1
    assert kept.save({}, 1) == 1 and set(store.names) == {"job/main/checkpoint/1"}
    assert kept.load().state == 1
    for replica in replicas:
        replica.down = True
    monkeypatch.setattr(checkpoint.Keys, "__init__", lambda *_: None)
    monkeypatch.setattr(_artifacts, "STREAM_TIMEOUT_S", 0.3)
    with pytest.raises(PlaneUnavailable):
        _artifacts.put(kept._shelf._plane, "x", b"data", "file")
    with pytest.raises(PlaneUnavailable):
        _artifacts.get(kept._shelf._plane, "101")


def test_older_versions_than_are_kept_go_even_if_a_save_died_before_it_deleted_them(cluster, monkeypatch):
    table, store, _ = cluster
    kept = shelf_of(cluster, monkeypatch)

    def versions():
        return sorted(int(name.rpartition("/")[2]) for name in store.names)

    assert [kept.save({}, n, keep=2) for n in range(3)] == [1, 2, 3] and versions() == [2, 3]
    delete, died = checkpoint.ClusterShelf._delete, []

    def die(self, artifacts):
        if died:
            raise KeyboardInterrupt
        died.append(delete(self, artifacts))  # what the save before left

    monkeypatch.setattr(checkpoint.ClusterShelf, "_delete", die)
    with pytest.raises(KeyboardInterrupt):
        kept.save({}, 3, keep=2)
    assert versions() == [2, 3, 4] and kept.load().state == 3
    monkeypatch.setattr(checkpoint.ClusterShelf, "_delete", delete)
    assert kept.save({}, 4, keep=2) == 5 and versions() == [4, 5]
    assert kept.save({}, 5, keep=1) == 6 and versions() == [6]
    assert kept.save({}, 6, keep=9) == 7 and versions() == [6, 7]
    assert kept.load(version=6).state == 5 and kept.load(version=5) is None
    # Bytes of an attempt that was fenced are not deleted: they may be another's, too.
    table.stale_epochs.add(5)
    with pytest.raises(raftgrid.LeaseLost):
        kept.save({}, 7, keep=1)
    assert versions() == [6, 7, 8]


def test_damage_that_does_not_end_is_an_error_and_a_wrong_digest_is_never_loaded(cluster, monkeypatch):
    _, store, _ = cluster
    kept = shelf_of(cluster, monkeypatch)
    kept.save({}, 1)
    store.damage = 1000
    with pytest.raises(raftgrid.TransferError, match="5 times: the chunk at offset 0 is damaged"):
        kept.load()
    store.damage = 0
    artifact = store.names["job/main/checkpoint/1"]
    store.by_id[artifact] = _values.pack({"params": {}, "state": 2}, {"version": "1"})
    with pytest.raises(raftgrid.TransferError, match="SHA-256 differs"):
        kept.load()


def test_ids_that_no_artifact_may_have_get_another_name(cluster, monkeypatch):
    kept = shelf_of(cluster, monkeypatch, task="nightly@2026-01-01T00:00")
    assert kept.save({}, 1) == 1 and kept.load().state == 1
    assert all(checkpoint._OWNER.fullmatch(name) for name in cluster[1].names)
