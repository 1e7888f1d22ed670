"""Replicated keys and torchrun's rendezvous on them, before replicas that die and lose answers."""

import datetime
import json
import threading
import uuid

import pytest
import torch_stand_in

from fake_keys import Replica, Table
from raftgrid import LeaseLost
from raftgrid._plane import Plane, PlaneUnavailable, endpoints_of, request_id
from raftgrid.kv import Keys

with torch_stand_in.in_place():
    from torch.distributed.elastic.rendezvous import RendezvousParameters

    from raftgrid import torchrun


@pytest.fixture
def replicas():
    table = Table()
    found = [Replica(table) for _ in range(3)]
    yield found
    for replica in found:
        replica.server.stop(None)


def keys_of(replicas, **more):
    return Keys(Plane([replica.address for replica in replicas]), timeout_s=5.0, **more)


def backend_of(replicas):
    return torchrun.RaftgridRendezvousBackend(keys_of(replicas), "run")


def test_request_ids_are_uuids_of_their_time():
    made = [uuid.UUID(request_id()) for _ in range(100)]
    assert all(one.version == 7 and one.variant == uuid.RFC_4122 for one in made)
    assert len(set(made)) == 100
    now_ms = datetime.datetime.now(datetime.timezone.utc).timestamp() * 1000
    assert all(abs((one.int >> 80) - now_ms) < 60_000 for one in made)


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:port", "a:1,b"])
def test_endpoints_that_are_none_are_named(text):
    with pytest.raises(ValueError, match="endpoint"):
        endpoints_of(text)


def test_a_value_goes_in_only_where_nobody_wrote_since_it_was_read(replicas):
    keys = keys_of(replicas)
    swapped, first = keys.compare_and_set("k", b"one", 0)
    assert swapped and first.data == b"one"
    assert keys.compare_and_set("k", b"two", 0) == (False, first)
    swapped, second = keys.compare_and_set("k", b"two", first.revision)
    assert swapped and second.revision > first.revision and keys.get("k") == second
    assert keys.delete("k") and not keys.delete("k") and keys.get("k") is None


def test_calls_go_on_at_another_replica_and_a_lost_answer_is_not_a_second_write(replicas):
    keys = keys_of(replicas)
    replicas[0].down = True
    replicas[1].losses = 1
    swapped, value = keys.compare_and_set("k", b"one", 0)
    assert swapped and value.revision == 1, "the repeated request found its first answer"
    replicas[1].server.stop(None).wait()
    assert keys.get("k").data == b"one"


def test_the_leader_that_a_replica_names_is_asked_next(replicas):
    for replica in replicas[:2]:
        replica.down, replica.hint = True, f"leader: {replicas[2].address}; try there"
    plane = Plane([replica.address for replica in replicas[:2]])
    keys = Keys(plane, timeout_s=5.0)
    keys.put("k", b"v")
    assert plane.preferred == replicas[2].address


def test_without_any_replica_the_call_ends_in_time(replicas):
    for replica in replicas:
        replica.down = True
    keys = Keys(Plane([replica.address for replica in replicas]), timeout_s=0.3)
    with pytest.raises(PlaneUnavailable, match="no replica at"):
        keys.get("k")


def test_writes_of_a_task_carry_its_lease_and_end_with_it(replicas, monkeypatch):
    monkeypatch.setenv("RAFTGRID_TASK", "t")
    monkeypatch.setenv("RAFTGRID_LEASE_EPOCH", "7")
    monkeypatch.setenv("RAFTGRID_JOB", "j")
    keys = Keys.of_task(Plane([replicas[0].address]), 5.0)
    keys.put("k", b"v")
    assert replicas[0].table.writers == [("t", 7, "j")]
    replicas[0].table.stale_epochs.add(7)
    with pytest.raises(LeaseLost, match="STALE_LEASE"):
        keys.put("k", b"w")
    assert keys.get("k").data == b"v"


def test_a_key_is_waited_for(replicas):
    keys = keys_of(replicas)
    assert keys.wait("k", 0.0) is None
    timer = threading.Timer(0.1, lambda: keys.put("k", b"v"))
    timer.start()
    assert keys.wait("k", 10.0).data == b"v"


def test_the_state_is_set_by_its_token_only(replicas):
    one, other = backend_of(replicas), backend_of(replicas)
    assert one.name == "raftgrid" and one.get_state() is None
    state, token, went_in = one.set_state(b"a")
    assert (state, went_in) == (b"a", True)
    # Another node that believed there was none learns what is there.
    assert other.set_state(b"b") == (b"a", token, False)
    assert other.get_state() == (b"a", token)
    _, second, went_in = other.set_state(b"b", token)
    assert went_in and second != token
    assert one.set_state(b"c", token) == (b"b", second, False), "the token is an old one"
    assert one.set_state(b"c", b"a token of another backend") == (b"b", second, False)
    with pytest.raises(Exception, match="a key holds"):
        one.set_state(b"x" * 100_000, second)


def test_an_equal_state_set_by_somebody_else_does_not_pass_for_ones_own(replicas):
    one, other = backend_of(replicas), backend_of(replicas)
    _, token, _ = one.set_state(b"same")
    assert other.set_state(b"same", token)[2]
    assert not one.set_state(b"same", token)[2]


def test_many_nodes_lose_no_change(replicas):
    def work(name):
        backend = backend_of(replicas)
        for number in range(10):
            while True:
                found = backend.get_state()
                entries = json.loads(found[0]) if found else []
                if backend.set_state(json.dumps(entries + [f"{name}{number}"]).encode(), found and found[1])[2]:
                    break

    replicas[2].losses = 5
    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    [thread.start() for thread in threads]
    replicas[0].down = True
    [thread.join() for thread in threads]
    entries = json.loads(backend_of(replicas).get_state()[0])
    assert sorted(entries) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))


def test_a_control_plane_that_is_gone_is_a_connection_error(replicas):
    for replica in replicas:
        replica.down = True
    backend = torchrun.RaftgridRendezvousBackend(Keys(Plane([replicas[0].address]), timeout_s=0.2), "run")
    with pytest.raises(Exception) as caught:
        backend.get_state()
    assert type(caught.value).__name__ == "RendezvousConnectionError"


def test_the_store_adds_compares_and_waits(replicas):
    store = torchrun.RaftgridStore(keys_of(replicas), "run", datetime.timedelta(seconds=5))
    assert [store.add("n", 2), store.add("n", 3), store.add("n", 0)] == [2, 5, 5]
    assert store.compare_set("c", "", "first") == b"first"
    assert store.compare_set("c", "", "second") == b"first"
    assert store.compare_set("c", "first", "second") == b"second"
    assert store.compare_set("none", "x", "y") == b"x"
    assert not store.check(["c", "later"])
    threading.Timer(0.1, lambda: store.set("later", b"\x00\xff")).start()
    store.wait(["c", "later"])
    assert store.get("later") == b"\x00\xff" and store.check(["c", "later"])
    assert store.delete_key("later") and not store.delete_key("later")
    with pytest.raises(LookupError):
        store.wait(["never"], datetime.timedelta(seconds=0.1))
    store.set("x" * 2000, b"long")
    assert store.get("x" * 2000) == b"long"
    assert all(len(key) <= 512 for key in replicas[0].table.rows)


def test_the_entry_point_gives_a_function_that_makes_handlers(replicas):
    params = RendezvousParameters(
        "raftgrid", ",".join(replica.address for replica in replicas), "run", 1, 2, local_addr="127.0.0.1"
    )
    assert torchrun.handler()(params) is not None
    with pytest.raises(ValueError, match="endpoint"):
        torchrun.handler()(RendezvousParameters("raftgrid", "", "run", 1, 2))
