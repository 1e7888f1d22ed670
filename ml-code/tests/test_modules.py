"""Parameters in other forms than a dict of NumPy arrays: trees, torch modules, JAX. What is not installed is skipped by name."""

import collections
import sys

import numpy as np
import pytest

import raftgrid
from raftgrid import _frame, _trees

Layer = collections.namedtuple("Layer", ["kernel", "bias"])


def tree():
    rng = np.random.default_rng(2)
    return {
        "layers": [Layer(rng.standard_normal((3, 2)), np.zeros(2, np.float32)), Layer(rng.standard_normal((2, 1)), np.ones(1, np.float32))],
        "scale": (np.asarray(np.float32(0.5)), None),
        "b": {10: np.zeros(1), 9: np.ones(1)},
    }


NAMES = {"layers.0.kernel", "layers.0.bias", "layers.1.kernel", "layers.1.bias", "scale.0", "b.10", "b.9"}


def test_leaves_are_named_by_their_place():
    assert set(_trees.values(tree())) == NAMES
    assert _trees.values(np.ones(2)).keys() == {""}
    assert _trees.values({}) == {}
    for wrong, match in [
        ({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, "two leaves .* have the name `a.b`"),
        ({"a": [1.0]}, "leaf `a.0` is a float"),
        ({"a": "text"}, "leaf `a` is a str"),
    ]:
        with pytest.raises(raftgrid.FrameError, match=match):
            _trees.values(wrong)


def test_a_tree_is_made_anew_and_the_old_one_stays():
    before = tree()
    model = {name: array + 1 for name, array in _trees.values(before).items()}
    after = _trees.fill(before, model)
    assert type(after["layers"][1]) is Layer and type(after["scale"]) is tuple and list(after["b"]) == [10, 9]
    assert after["scale"][1] is None and after["b"][9].tolist() == [2.0] and before["b"][9].tolist() == [1.0]
    assert after["layers"][0].bias.dtype == np.float32
    found = _trees.values(after)
    assert all(np.array_equal(found[name], model[name]) for name in NAMES)
    with pytest.raises(raftgrid.FrameError, match="not the model's: tensor `b.10` is unknown"):
        _trees.fill(before, {name: array for name, array in model.items() if name != "b.10"})
    with pytest.raises(raftgrid.FrameError, match="not the model's: tensor `b.9` has dtype F64"):
        _trees.fill(before, dict(model, **{"b.9": np.ones(1, np.float32)}))


def run(params, grads_of, **settings):
    """A plain loop with a tree; (SHA-256 of the model, the final tree)."""
    job = raftgrid.init(rounds=3, num_shards=2)
    assert job.init_model(params, raftgrid.Adam(0.1), **settings).ok
    for step in job.rounds():
        params = step.load(params)
        assert step.push(grads_of(params, step)).ok
    params = job.load_final(params)
    return job.model_sha256, params


def test_a_tree_trains_as_the_dict_of_its_leaves_does():
    def of_tree(params, step):
        return _trees.fill(params, {name: array * (1 + step.shard) for name, array in _trees.values(params).items()})

    def of_dict(params, step):
        return {name: array * (1 + step.shard) for name, array in params.items()}

    found, final = run(tree(), of_tree)
    assert found == run(_trees.values(tree()), of_dict)[0]
    assert not np.array_equal(final["layers"][0].kernel, tree()["layers"][0].kernel)


def test_the_function_style_takes_trees_too():
    def compute(params, step):
        return _trees.fill(params, {name: array * (1 + step.shard) for name, array in _trees.values(params).items()}), 1.0, {}

    seen = []
    final = raftgrid.run(
        raftgrid.worker(compute),
        init=lambda seed: tree(),
        optimizer=raftgrid.Adam(0.1),
        schedule=raftgrid.schedule.Constant(2),
        combine=raftgrid.Median(),
        finish=lambda params, job: seen.append(params),
        rounds=3,
        num_shards=2,
    )
    job = raftgrid.init(rounds=3, num_shards=2)
    params = tree()
    job.init_model(params, raftgrid.Adam(0.1), schedule=raftgrid.schedule.Constant(2), combine=raftgrid.Median())
    for step in job.rounds():
        params = step.load(params)
        step.push(compute(params, step)[0])
    expected = job.load_final(params)
    assert seen == [final] and _frame.to_bytes(_trees.values(final)) == _frame.to_bytes(_trees.values(expected))
    assert _frame.to_bytes(_trees.values(final)) != _frame.to_bytes(_trees.values(tree()))


@pytest.fixture
def jax():
    found = pytest.importorskip("jax", reason="jax is not installed")
    return found


def test_jax_names_leaves_as_plain_python_does_and_its_arrays_stay_its_own(jax, monkeypatch):
    with_jax = _trees.values(tree())
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "jax")
        without = _trees.values(tree())
    assert set(with_jax) == set(without) == NAMES and all(np.array_equal(with_jax[name], without[name]) for name in NAMES)
    of_jax = jax.tree_util.tree_map(lambda leaf: jax.numpy.asarray(leaf, dtype=jax.numpy.float32), tree())
    after = _trees.fill(of_jax, _trees.values(of_jax))
    leaves = jax.tree_util.tree_leaves(after)
    assert len(leaves) == 7 and all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert jax.tree_util.tree_structure(after) == jax.tree_util.tree_structure(of_jax)
    half = {"w": jax.numpy.zeros(2, dtype=jax.numpy.bfloat16)}
    with pytest.raises(raftgrid.FrameError, match="`w` has dtype bfloat16"):
        raftgrid.init().init_model(half)


def test_jax_trains_as_numpy_does(jax):
    data = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    goal = data @ np.array([1.0, -2.0, 0.5], np.float32)

    def loss(params, rows, wanted):
        return ((rows @ params["layer"]["w"] + params["layer"]["b"] - wanted) ** 2).mean()

    def grads_of(params, step):
        return jax.grad(loss)(params, data[step.shard :: 2], goal[step.shard :: 2])

    def plain(params, step):
        rows, wanted = data[step.shard :: 2], goal[step.shard :: 2]
        error = 2 * (rows @ params["layer.w"] + params["layer.b"] - wanted) / np.float32(len(rows))
        return {"layer.w": rows.T @ error, "layer.b": np.asarray(error.sum())}

    start = {"layer": {"w": jax.numpy.zeros(3), "b": jax.numpy.zeros(())}}
    _, found = run(start, grads_of)
    _, expected = run({"layer.w": np.zeros(3, np.float32), "layer.b": np.zeros((), np.float32)}, plain)
    np.testing.assert_allclose(found["layer"]["w"], expected["layer.w"], rtol=1e-4)
    assert isinstance(found["layer"]["w"], jax.Array)


@pytest.fixture
def torch():
    found = pytest.importorskip("torch", reason="torch is not installed")
    return found


def network(torch, seed=1):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))


def rows(torch, step):
    generator = torch.Generator().manual_seed(step.seed % 2**32)
    return torch.randn(6, 3, generator=generator) * (1 + step.shard)


def train(torch, order, rounds=3, num_shards=2):
    """Runs the rounds with a process for each round, or all in one; returns what the shards' batch norms saw and the model's SHA-256."""
    module = network(torch)
    job = raftgrid.init(rounds=rounds, num_shards=num_shards)
    job.init_model(module, raftgrid.SGD(0.1, 0.9))
    seen = {}
    for step in job.rounds():
        if order == "anew":
            module = network(torch, seed=step.round + 5)  # another process, with other first weights
        step.load(module)
        seen[step.round, step.shard] = module[1].running_mean.tolist(), int(module[1].num_batches_tracked)
        module.train()
        module(rows(torch, step)).square().mean().backward()
        assert step.push(module, weight=6).ok
    job.load_final(module)
    return seen, job.model_sha256, module, job


def test_a_module_is_loaded_pushed_and_its_buffers_go_with_the_shard(torch):
    seen, sha256, module, job = train(torch, "same")
    # Each shard's statistics begin at the module's own and have one batch more in each round, whatever the other shard did in between.
    for shard in range(2):
        assert [seen[number, shard][1] for number in range(3)] == [0, 1, 2]
        assert seen[0, shard][0] == [0.0] * 4
    assert seen[2, 0][0] != seen[2, 1][0]
    assert train(torch, "anew")[:2] == (seen, sha256)
    # After the end: the model's parameters, and the buffers of the start.
    assert module[1].running_mean.tolist() == [0.0] * 4
    final = job.load_final()
    assert set(final) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert np.array_equal(module[0].weight.detach().numpy(), final["0.weight"])


def test_one_sgd_round_is_one_step_of_torchs_own_optimiser(torch):
    own = network(torch)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9)
    module = network(torch)
    job = raftgrid.init(rounds=3)
    job.init_model(module, raftgrid.SGD(0.1, 0.9))
    for step in job.rounds():
        step.load(module)
        module(rows(torch, step)).square().mean().backward()
        step.push(module)
        optimizer.zero_grad()
        own(rows(torch, step)).square().mean().backward()
        optimizer.step()
    for name, array in job.load_final().items():
        np.testing.assert_allclose(array, dict(own.named_parameters())[name].detach().numpy(), rtol=1e-4, atol=1e-6)


def test_gradients_do_not_pile_up_and_unused_parameters_have_zeros(torch):
    module = network(torch)
    unused = torch.nn.Linear(2, 2)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    both = torch.nn.ModuleDict({"used": module, "unused": unused, "frozen": frozen})
    job = raftgrid.init(rounds=1, num_shards=2)
    job.init_model(both)
    pushed = []
    for step in job.rounds():
        step.load(both)
        with pytest.raises(raftgrid.FrameError, match="call loss.backward"):
            step.push(both)
        module(torch.ones(6, 3) * torch.arange(6.0)[:, None]).square().mean().backward()
        pushed.append(_trees.gradients(both))
        assert step.push(both).ok
    for name, array in pushed[0].items():
        assert np.array_equal(array, pushed[1][name])
    assert not pushed[0]["unused.weight"].any() and "frozen.weight" not in pushed[0]


def test_deltas_and_mismatches_of_modules(torch):
    module, other = network(torch), torch.nn.Linear(3, 4)
    job = raftgrid.init(rounds=1)
    job.init_model(module, raftgrid.FedAvg())
    (step,) = [next(job.rounds())]
    step.load(module)
    local = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        local.zero_grad()
        module(rows(torch, step)).square().mean().backward()
        local.step()
    assert step.push_delta(None, module).ok
    list(job.rounds())
    for name, array in job.load_final().items():
        np.testing.assert_allclose(array, dict(module.named_parameters())[name].detach().numpy(), rtol=1e-5, atol=1e-7)
    with pytest.raises(raftgrid.FrameError, match="the parameters of the module are not the model's: tensor `0.bias` is missing"):
        job.load_final(other)
    with pytest.raises(raftgrid.FrameError, match="`weight` has dtype torch.bfloat16"):
        raftgrid.init().init_model(torch.nn.Linear(1, 1, dtype=torch.bfloat16))


def test_a_checkpoint_of_a_module_and_its_optimiser_goes_on_to_the_same_bits(torch, tmp_path, monkeypatch):
    monkeypatch.setenv("RAFTGRID_CHECKPOINTS", str(tmp_path))

    def steps(module, optimizer, numbers):
        for number in numbers:
            torch.manual_seed(number)
            optimizer.zero_grad()
            module(torch.randn(6, 3)).square().mean().backward()
            optimizer.step()

    def fresh(seed):
        module = network(torch, seed)
        return module, torch.optim.Adam(module.parameters(), lr=0.1)

    whole, optimizer = fresh(1)
    steps(whole, optimizer, range(6))
    module, optimizer = fresh(1)
    steps(module, optimizer, range(3))
    raftgrid.init().checkpoint.save(module, {"optimizer": optimizer.state_dict(), "next": 3})
    module, optimizer = fresh(2)
    found = raftgrid.init().checkpoint.load(module)
    assert found.params is module
    optimizer.load_state_dict(found.state["optimizer"])
    steps(module, optimizer, range(found.state["next"], 6))
    for (name, expected), tensor in zip(whole.state_dict().items(), module.state_dict().values()):
        assert torch.equal(expected, tensor), name


def test_the_numeric_class_names_the_frameworks_that_are_imported(monkeypatch):
    import json
    import types

    from raftgrid._numeric import numeric_class

    def found():
        numeric_class.cache_clear()
        return json.loads(numeric_class())

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    assert "torch" not in found() and "jax" not in found()
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="9.9"))
    assert found()["torch"] == "9.9"
    numeric_class.cache_clear()


def test_frames_of_trees_are_canonical():
    values = _trees.values(tree())
    assert _frame.to_bytes(values) == _frame.to_bytes(dict(reversed(list(values.items()))))
