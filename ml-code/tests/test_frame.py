"""Frames, checksums, optimiser settings."""

import hashlib
import json
import random

import numpy as np
import pytest

import raftgrid
from raftgrid import SGD, FrameError, _crc32c, _frame, _sealed


def header(data):
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def test_names_are_sorted_and_wider_dtypes_come_first():
    values = {"z": np.zeros(1), "b": np.zeros(2, np.float32), "a": np.zeros(2, np.float32), "ä": np.zeros(1, np.float32)}
    data = _frame.to_bytes(values)
    assert list(header(data)) == list(_frame.from_bytes(data)) == _frame.canonical_names(values) == ["z", "a", "b", "ä"]
    assert data == _frame.to_bytes(dict(reversed(values.items())))
    offsets = [entry["data_offsets"] for entry in header(data).values()]
    assert offsets == [[0, 8], [8, 16], [16, 24], [24, 28]]
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_memory_layout_and_byte_order_do_not_change_the_bytes():
    square = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = _frame.to_bytes({"w": square})
    assert _frame.to_bytes({"w": np.asfortranarray(square)}) == expected
    assert _frame.to_bytes({"w": square.astype(">f4")}) == expected
    assert _frame.to_bytes({"w": np.repeat(square, 2, axis=1)[:, ::2]}) == expected
    loaded = _frame.from_bytes(expected)
    assert loaded["w"].dtype == np.float32 and loaded["w"].tolist() == square.tolist()


def test_the_file_is_what_the_safetensors_library_writes_whatever_the_names():
    import safetensors.numpy

    draw = random.Random(3)
    letters = [chr(code) for code in [*range(1, 0x180), 0x2028, 0xFFFD, 0x1F600]]
    for _ in range(200):
        names = {"".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(draw.randint(0, 6))}
        shapes = [(), (0,), (3,), (2, 5), (1, 0, 4)]
        values = {n: np.ones(draw.choice(shapes), draw.choice([np.float32, np.float64])) * draw.random() for n in names}
        data = _frame.to_bytes(values)
        assert data == safetensors.numpy.save(_frame.canonical(values))
        again = safetensors.numpy.load(data)
        assert {n: a.tobytes() for n, a in _frame.from_bytes(data).items()} == {n: again[n].tobytes() for n in again}


def test_a_file_in_pieces_has_no_copy_of_the_arrays_and_the_same_chunks():
    values = {"w": np.arange(1000, dtype=np.float32), "b": np.arange(7.0), "e": np.zeros((0, 2)), "s": np.array(2.5)}
    whole, file = _frame.to_bytes(values), _frame.to_file(values)
    assert len(file) == len(whole) and bytes(file) == whole and file.sha256() == hashlib.sha256(whole).digest()
    for size in (1, 7, 64, 4096, 10_000):
        chunks = list(file.chunks(size))
        assert b"".join(chunks) == whole and all(len(chunk) == size for chunk in chunks[:-1])
    values["w"][0] = 9.0
    assert bytes(file) != whole, "it is over the memory of the array"
    for array in _frame.from_bytes(bytearray(whole)).values():
        assert not array.flags.writeable


def test_tensors_that_do_not_fill_the_file_are_refused():
    def file(*entries, size):
        text = json.dumps({f"t{i}": {"dtype": "F32", "shape": s, "data_offsets": o} for i, (s, o) in enumerate(entries)}).encode()
        return len(text).to_bytes(8, "little") + text + bytes(size)

    assert list(_frame.from_bytes(file(([1], [4, 8]), ([1], [0, 4]), size=8))) == ["t0", "t1"]
    for data in (
        file(([1], [0, 4]), size=5),
        file(([1], [0, 4]), size=3),
        file(([2], [0, 4]), size=4),
        file(([1], [0, 4]), ([1], [0, 4]), size=4),
        file(([1], [4, 8]), size=8),
        file(([-1], [0, 4]), size=4),
        file(([1.0], [0, 4]), size=4),
        file(([1], [0, True]), size=4),
        file(([1 << 62, 8], [0, 0]), size=0),
    ):
        with pytest.raises(FrameError):
            _frame.from_bytes(data)


def test_scalars_empty_tensors_and_no_tensors_survive():
    for values in ({"s": np.array(2.5), "e": np.zeros((0, 3), np.float32)}, {}):
        loaded = _frame.from_bytes(_frame.to_bytes(values))
        assert {k: (v.shape, v.dtype) for k, v in loaded.items()} == {k: (v.shape, v.dtype) for k, v in values.items()}


@pytest.mark.parametrize(
    "values, cause",
    [
        ({"w": np.zeros(1, np.float16)}, "tensor `w` has dtype float16"),
        ({"w": np.zeros(1, np.int64)}, "tensor `w` has dtype int64"),
        ({"w": np.array(["x"])}, "tensor `w` has dtype <U1"),
        ({"": np.zeros(1)}, "tensor name ''"),
        ({1: np.zeros(1)}, "tensor name 1"),
        ({"n" * 2000: np.zeros(1)}, "1 to 1024 bytes"),
        ({"__metadata__": np.zeros(1)}, "tensor name '__metadata__'"),
    ],
)
def test_what_no_frame_can_hold_is_refused_by_name(values, cause):
    with pytest.raises(FrameError, match=cause):
        _frame.to_bytes(values)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff" * 30, (5).to_bytes(8, "little") + b"hello", (99).to_bytes(8, "little")])
def test_bytes_that_are_no_frame_are_refused(data):
    with pytest.raises(FrameError, match="failed to read the frame"):
        _frame.from_bytes(data)


def sealed(data):
    with _sealed.Sealed([data]) as file:
        return _sealed.read(file.place, file.total_bytes)


def test_the_pieces_of_a_file_are_the_frame_and_a_sealed_one_is_read_without_a_copy():
    rng = np.random.default_rng(5)
    for case in range(200):
        count = case % 5
        params = {}
        for number in range(count):
            shape = tuple(rng.integers(0, 4, size=rng.integers(0, 4)))
            name = "".join(chr(rng.integers(1, 0x250)) for _ in range(1 + number)) + str(number)
            params[name] = np.asarray(rng.standard_normal(shape), rng.choice([np.float32, np.float64]))
        whole = _frame.to_bytes(params)
        assert b"".join(_frame.to_file(params).pieces) == whole
        found, again = _frame.from_bytes(sealed(whole)), _frame.from_bytes(whole)
        assert list(found) == list(again)
        for name, array in again.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes() and not found[name].flags.writeable


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"w": 1},
        {"w": {"dtype": "F32", "shape": [2]}},
        {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"v": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    ],
)
def test_a_sealed_file_that_is_no_frame_is_refused(told):
    text = json.dumps(told).encode()
    with pytest.raises(FrameError):
        _frame.from_bytes(sealed(len(text).to_bytes(8, "little") + text + bytes(8)))
    for cut in (b"\x01", bytes(7), (1 << 40).to_bytes(8, "little"), len(text).to_bytes(8, "little") + text[:-1]):
        with pytest.raises(FrameError):
            _frame.from_bytes(sealed(cut))


def test_a_model_is_loaded_in_place_and_only_into_its_own_layout():
    source = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)}
    target = {name: np.zeros_like(array) for name, array in source.items()}
    kept = target["w"]
    assert _frame.fill(target, source) is target and target["w"] is kept and kept.tolist() == source["w"].tolist()
    filled = _frame.fill({}, source)
    filled["b"][0] = 7
    assert source["b"][0] == 1
    for wrong, cause in [
        ({"w": kept}, "`b` is unknown|`b` is missing"),
        ({"w": kept, "b": np.zeros(3)}, r"`b` has shape \[3\]"),
        ({"w": kept, "b": np.zeros(2, np.float32)}, "`b` has dtype F32"),
        ({"w": kept, "b": np.zeros(2), "c": kept}, "`c` is unknown"),
        ({"w": kept, "b": [0.0, 0.0]}, "`b` is a list"),
    ]:
        kept[:] = -1
        with pytest.raises(FrameError, match=cause):
            _frame.fill(wrong, source)
        assert (kept == -1).all()


KNOWN = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),  # RFC 3720, appendix B.4, as are the next three
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.mark.parametrize("data, expected", KNOWN)
def test_crc32c_of_known_vectors(data, expected):
    assert _crc32c.crc32c_numpy(data) == _crc32c.crc32c(data) == _crc32c._scalar(data) == expected


def test_crc32c_in_lanes_equals_the_loop_over_bytes():
    rng = random.Random(5)
    for size in [63, 64, 65, 127, 128, 1000, 4095, 4096, 4097, 65_537, *(rng.randrange(64, 20_000) for _ in range(20))]:
        data = rng.randbytes(size)
        expected = _crc32c._scalar(data)
        assert _crc32c.crc32c_numpy(data) == expected, size
        assert _crc32c.crc32c_numpy(memoryview(data)) == expected
        assert _crc32c.crc32c(data) == expected


def test_crc32c_of_a_whole_chunk_equals_the_extension():
    extension = pytest.importorskip("google_crc32c")
    data = random.Random(6).randbytes(1024 * 1024)
    assert _crc32c.crc32c_numpy(data) == extension.value(data)


@pytest.mark.parametrize(
    "settings, cause",
    [
        (dict(lr=0), "lr is 0"),
        (dict(lr=float("nan")), "lr is nan"),
        (dict(lr=1e39), "lr is 1e"),
        (dict(momentum=1.0), "momentum is 1"),
        (dict(momentum=-0.1), "momentum is -0.1"),
        (dict(weight_decay=-1), "weight_decay is -1"),
        (dict(nesterov=True), "nesterov needs"),
    ],
)
def test_settings_of_the_optimiser_are_checked(settings, cause):
    with pytest.raises(ValueError, match=cause):
        SGD(**settings)


def test_the_optimiser_message_has_every_setting():
    message = SGD(lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.01).to_proto()
    assert (message.algorithm, message.learning_rate, message.momentum) == ("sgd", 0.5, 0.9)
    assert (message.nesterov, message.weight_decay) == (True, 0.01)


def test_public_names_have_docstrings():
    for name in raftgrid.__all__:
        assert name == "__version__" or getattr(raftgrid, name).__doc__
