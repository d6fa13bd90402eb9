"""What only a device can show, in real sizes: run by test_cuda.py and by ``bench.alone.gpu_proof``, as parity.py is.

What is expected comes from the CPU backend, in float64 for both dtypes. An id begins with cell and dtype, by which
``bench.tools.groups`` divides the tests. One that hangs, as at a barrier that not all blocks can reach, ends its
process after `LIMIT` seconds and says what each thread was doing.
"""

import faulthandler
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import NamedTuple

import numpy as np
import parity
import pytest
from helpers import assert_near, assert_same_bits
from parity import AnyCase, all_results, any_case, go_stepwise, on_device, on_host, use_the_cpu

import numba_pack as nbp
from numba_pack import cells
from numba_pack.cells.dropout import Calls

if nbp.backend != "cuda" or os.environ.get("NUMBA_ENABLE_CUDASIM"):
    pytest.skip("no device", allow_module_level=True)

LIMIT = 90  # seconds, of which compiling may take most


@pytest.fixture(autouse=True)
def ended_if_it_hangs():
    faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


FORMULAS = {
    "LSTM": cells.LSTM,
    "GRU": cells.GRU,
    "RNN": cells.RNNTanh,
    "PeepholeLSTM": cells.PeepholeLSTM,
    "SLSTM": cells.SLSTM,
}
DTYPES = {"float32": np.float32, "float64": np.float64}


def for_each(argument, values, names=FORMULAS):
    """Parametrize a test by cell, dtype and the values, by name, of one more argument."""
    parameters = [
        pytest.param(FORMULAS[cell], DTYPES[dtype], value, id=f"{cell}-{dtype}-{name}")
        for cell, dtype, (name, value) in product(names, DTYPES, values.items())
    ]
    return pytest.mark.parametrize(("cell", "dtype", argument), parameters)


# -- results -----------------------------------------------------------------------------------------------------------


class Size(NamedTuple):
    """The sizes of a layer and its batch."""

    H: int
    lengths: tuple
    options: dict


def ragged(B, T):
    """B lengths, most of them short, of which one is T and, if there are others, one is 0."""
    lengths = (T * np.random.default_rng(B).random(B) ** 2).astype(int)
    lengths[:2] = [0, T][-B:]
    return tuple(lengths.tolist())


#: taken in turn. A projection is for cells that may have one, which the others do without
OPTIONS = (
    {"return_states": True},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
    {"num_layers": 2, "proj_size": 5, "bias": False},
)
BATCHES, UNITS = (1, 3, 40, 150), (3, 8, 33, 64, 130, 200)
SIZES = {
    f"B{B}-H{H}": Size(H, ragged(B, 60), OPTIONS[(i + j) % len(OPTIONS)])
    for (i, B), (j, H) in product(enumerate(BATCHES), enumerate(UNITS))
}
SIZES["one-step"] = Size(130, (1,) * 40, {})
SIZES["wide"] = Size(600, ragged(40, 12), {})
SIZES["long"] = Size(8, (1700, 3000), {})


def layer_of(cell, dtype, size):
    options = dict(size.options)
    if cell in (cells.GRU, cells.RNNTanh) or size.H <= options.get("proj_size", 0):
        options.pop("proj_size", None)
    return cell(size.H // 2 + 3, size.H, dtype=dtype, rng=0, **options)


def as_double(value):
    """The same in float64, of arrays in whatever they are in."""
    if isinstance(value, nbp.PackedSequence):
        return value._replace(data=as_double(value.data))
    if isinstance(value, tuple):
        return tuple(map(as_double, value))
    return None if value is None else value.astype(np.float64)


def expected_of(layer, case, size, monkeypatch):
    """What `all_results` are on the CPU in float64."""
    double = layer_of(layer.cell, np.float64, size)
    double.parameters = layer.parameters.astype(np.float64)
    double._training_calls = Calls(layer._training_calls.seed, seeded=True)
    with monkeypatch.context() as patch:
        use_the_cpu(patch)
        return all_results(double, AnyCase(*map(as_double, case)))


@for_each("size", SIZES)
def test_results_and_gradients_are_those_of_the_cpu(cell, dtype, size, monkeypatch):
    layer = layer_of(cell, dtype, size)
    case = any_case(layer, size.lengths)
    if layer.bidirectional:
        case = case._replace(hx=None)
    got = all_results(layer, case)
    for what, expected in expected_of(layer, case, size, monkeypatch).items():
        assert_near(layer, size.lengths, got[what], expected, what)


# -- bits --------------------------------------------------------------------------------------------------------------

#: of one block, of several, and of more rows than these do at once
BITS = {
    "one-block": Size(8, ragged(3, 20), {"bidirectional": True}),
    "some-blocks": Size(33, ragged(40, 30), {"bidirectional": True, "num_layers": 2}),
    "many-blocks": Size(200, ragged(150, 20), {}),
}


class Found(NamedTuple):
    """What belongs to sequences, packed, and the gradient of the parameters, which is a sum over all."""

    output: nbp.PackedSequence
    state: object
    d_input: nbp.PackedSequence
    d_hx: object
    d_parameters: np.ndarray


def run(layer, case):
    output, state, tape = layer.forward(case.input, case.hx)
    gradients = layer.backward(tape, case.d_output, case.d_state)
    return Found(output, state, gradients.input, gradients.hx, gradients.parameters)


def of_sequences(value, chosen):
    """The part of some of the sequences: of packed ones, of states, and of tuples of these."""
    if isinstance(value, nbp.PackedSequence):
        sequences = nbp.unpack_sequence(value)
        return nbp.pack_sequence([sequences[i] for i in chosen])
    if isinstance(value, tuple):
        return tuple(of_sequences(part, chosen) for part in value)
    return np.ascontiguousarray(value[:, chosen])


def assert_same(one, other):
    """Equal bits of two results, or parts of them."""
    assert_same_bits(arrays_of(one), arrays_of(other))


def arrays_of(value):
    if isinstance(value, nbp.PackedSequence):
        return [value.data]
    return [array for part in value for array in arrays_of(part)] if isinstance(value, tuple) else [value]


@for_each("size", BITS)
def test_bits_depend_neither_on_the_batch_nor_on_the_form(cell, dtype, size, monkeypatch):
    layer, B = layer_of(cell, dtype, size), len(size.lengths)
    case = any_case(layer, size.lengths)
    whole = run(layer, case)
    assert_same(run(layer, case), whole)
    shuffled = np.random.default_rng(0).permutation(B).tolist()
    for chosen in ([0], [1], [B - 1], shuffled[: B // 2], shuffled):
        got = run(layer, AnyCase(*of_sequences(tuple(case), chosen)))
        assert_same(tuple(got[:4]), of_sequences(tuple(whole[:4]), chosen))
    go_stepwise(monkeypatch)
    assert_same(run(layer, case), whole)


@for_each("size", {name: BITS[name] for name in ("some-blocks", "many-blocks")})
def test_nan_in_one_sequence_does_not_reach_another(cell, dtype, size):
    layer, B = layer_of(cell, dtype, size), len(size.lengths)
    case, ill = any_case(layer, size.lengths), 1  # the longest
    others = [i for i in range(B) if i != ill]
    expected = of_sequences(tuple(run(layer, case)[:4]), others)
    sequences = nbp.unpack_sequence(case.input)
    sequences[ill] = np.full_like(sequences[ill], np.nan)
    got = run(layer, case._replace(input=nbp.pack_sequence(sequences)))
    assert_same(of_sequences(tuple(got[:4]), others), expected)
    assert np.isnan(nbp.unpack_sequence(got.output)[ill]).all()


# -- streams -----------------------------------------------------------------------------------------------------------

ROUNDS = 15


def new_stream():
    from numba import cuda

    return cuda.stream()


def assert_same_at_the_same_time(problems):
    """Each problem, a layer and a case, has in a thread and stream of its own the bits that it has alone."""
    alone = [run(layer, case) for layer, case in problems]
    cases = [AnyCase(*map(on_device, case)) for _, case in problems]
    start = threading.Barrier(len(problems), timeout=LIMIT / 2)

    def work(i):
        with nbp.cuda.use_stream(new_stream()):
            start.wait()
            results = [tuple(run(problems[i][0], cases[i])) for _ in range(ROUNDS)]  # enqueued: nothing waits
            return list(map(on_host, results))

    with ThreadPoolExecutor(len(problems)) as pool:
        for results, expected in zip(pool.map(work, range(len(problems))), alone, strict=True):
            for got in results:
                assert_same(got, tuple(expected))


def problems_of(cell, dtype, sizes):
    layers = [layer_of(cell, dtype, size) for size in sizes]
    return [(layer, any_case(layer, size.lengths)) for layer, size in zip(layers, sizes, strict=True)]


#: each fills much of the device, so that the scans of two cannot all be resident
LARGE = Size(512, ragged(150, 40), {"bidirectional": True})
SHAPES = {"two": [BITS["many-blocks"], LARGE], "four": [*BITS.values(), LARGE]}


@for_each("sizes", SHAPES, ("LSTM", "GRU"))
def test_streams_of_several_threads_at_the_same_time(cell, dtype, sizes):
    assert_same_at_the_same_time(problems_of(cell, dtype, sizes))


@for_each("size", {"": BITS["many-blocks"]}, ("LSTM",))
def test_one_layer_in_three_threads_at_the_same_time(cell, dtype, size):
    assert_same_at_the_same_time(problems_of(cell, dtype, [size]) * 3)


@contextmanager
def busy(torch):
    """PyTorch keeps the device busy, on a stream and in a thread of its own."""
    over, begun = threading.Event(), threading.Event()

    def work():
        a = torch.rand(4096, 4096, device="cuda")
        with torch.cuda.stream(torch.cuda.Stream()):
            while not over.is_set():
                for _ in range(8):
                    torch.mm(a, a)
                torch.cuda.current_stream().synchronize()
                begun.set()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            while not begun.wait(0.1) and not future.done():
                pass
            yield
        finally:
            over.set()
        future.result()


@for_each("sizes", SHAPES, ("LSTM",))
def test_streams_while_pytorch_keeps_the_device_busy(cell, dtype, sizes):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no device")
    with busy(torch):
        assert_same_at_the_same_time(problems_of(cell, dtype, sizes))


# -- packing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "trailing"),
    [("?", ()), ("u1", (7,)), ("i2", ()), ("f4", (64,)), ("f8", (3, 2)), ("c16", (5,))],
    ids=str,
)
def test_packing_of_ten_thousand_rows(dtype, trailing):
    rng = np.random.default_rng(0)
    lengths = ragged(300, 100)
    lengths = (10_000 - sum(lengths), *lengths)
    sequences = [rng.integers(0, 2, (n, *trailing)).astype(dtype) for n in lengths]
    assert len(nbp.pack_sequence(sequences).data) == 10_000
    parity.assert_packing_is_that_of_the_host(sequences)
