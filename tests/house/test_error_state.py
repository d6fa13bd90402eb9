"""No result depends on what NumPy does about floating-point errors, nor on what Python does about warnings."""

import os
import subprocess
import sys
import warnings

import helpers
import numpy as np
import pytest

import numba_pack as nbp
from numba_pack.interop._onnx_cells import Composition, cell_of

TINY, HUGE = 1e-50, 1e300  # neither fits float32


def extreme(dtype):
    """Rows (5, 3) of zeros, denormals, the least and the largest numbers, infinities and NaN."""
    info = np.finfo(dtype)
    numbers = [info.tiny, info.smallest_subnormal, info.max, 1e-30, 1e20, np.inf, 0.0]
    return np.array([*numbers, *(-number for number in numbers), np.nan], dtype).reshape(5, 3)


def layers_run(dtype):
    rows = extreme(dtype)
    for cell in helpers.CELLS:
        layer = helpers.make_layer(cell, 3, 4, num_layers=2, bidirectional=True, dtype=dtype)
        weak = np.where(layer.parameters > 0, np.finfo(dtype).smallest_subnormal, 0).astype(dtype)
        for parameters in (layer.parameters, weak):
            layer.parameters = parameters
            for given in (nbp.pack_sequence([rows, rows[:2]]), rows[:, None].copy(), rows):
                yield layer(given)
                output, state, tape = layer.forward(given)
                yield output, state, layer.backward(tape, output, state)
    for make in (nbp.RNNCell, nbp.LSTMCell, nbp.GRUCell):
        cell = make(3, 4, dtype=dtype, rng=0)
        state, tape = cell.forward(rows)
        yield cell(rows), cell.backward(tape, state)
    bounded = cell_of(Composition("GRU", ("HardSigmoid", "Elu"), clip=True))(3, 4, dtype=dtype, clip=1e30, rng=0)
    bounded.parameters = np.where(bounded.parameters > 0, 1e30, np.finfo(dtype).smallest_subnormal).astype(dtype)
    output, state, tape = bounded.forward(rows)
    yield output, state, bounded.backward(tape, output, state)


def parameters_made(dtype):
    layer = nbp.LSTM(3, 4, dtype=dtype, rng=0)
    layer.load_state_dict({name: np.full(value.shape, TINY) for name, value in layer.state_dict().items()})
    yield layer.parameters
    yield nbp.fold_embedding(layer, np.full((5, 3), TINY)).parameters
    with (
        pytest.raises(ValueError, match="must be finite in float32")
        if dtype is np.float32
        else warnings.catch_warnings()
    ):
        layer.load_state_dict({name: np.full(value.shape, HUGE) for name, value in layer.state_dict().items()})


def steps_taken(dtype):
    vector = extreme(dtype).ravel()
    for make in (nbp.optim.SGD, nbp.optim.RMSprop, nbp.optim.Adam, nbp.optim.AdamW):
        for lr in (0.1, 1e300):
            optimizer = make(lr, weight_decay=0.1)
            yield [optimizer.step(vector, vector[::-1].copy()) for _ in range(3)]
            optimizer.load_state_dict(optimizer.state_dict())
            yield optimizer.step(vector, vector, out=vector.copy())
    for limit in (0, 1e-300, 1.0, np.inf):
        yield nbp.optim.clip_grad_norm(vector, limit), nbp.optim.clip_grad_norm(vector[:4], limit)
    for weights in (None, np.array([0.0, 1.0, 1e-300, 1.0, 1e300])):
        for reduction in ("mean", "none"):
            options = {"weights": weights, "reduction": reduction}
            yield nbp.losses.softmax_cross_entropy(extreme(dtype), np.array([0, 1, 2, 0, 1]), **options)
            yield nbp.losses.binary_cross_entropy(extreme(dtype), np.ones((5, 3)), **options)
            yield nbp.losses.mse(extreme(dtype), extreme(dtype)[::-1], **options)
            yield nbp.losses.huber(extreme(dtype), extreme(dtype)[::-1], **options)
    yield nbp.losses.ctc(extreme(dtype)[:, None], [np.array([1, 2])], reduction="none")


def parts_run(dtype):
    linear, embedding = nbp.Linear(3, 4, dtype=dtype, rng=0), nbp.Embedding(4, 3, dtype=dtype, rng=0)
    output, tape = linear.forward(extreme(dtype))
    yield output, linear.backward(tape, output)
    yield embedding.backward(embedding.forward(np.array([0, 1, 1, 0, 3]))[1], extreme(dtype))
    linear.load_state_dict({name: np.full(value.shape, TINY) for name, value in linear.state_dict().items()})
    model = nbp.Model(linear=linear, embedding=embedding)
    model.parameters = np.full_like(model.parameters, np.finfo(dtype).smallest_subnormal)
    yield model.parameters, model.gradient(linear=None, embedding=np.full(12, TINY, dtype))


def batches_made(dtype):
    rows = extreme(dtype)
    packed = nbp.pack_sequence([rows, rows[:2]])
    yield packed.astype("f2"), packed.astype("i4"), packed.astype("c16")
    for value in (TINY, np.float64(TINY), np.nan, np.inf, 1e-310):
        yield nbp.pad_packed_sequence(packed, padding_value=value)
        yield nbp.pad_sequence([rows, rows[:2]], padding_value=value, padding_side="left")
    yield nbp.pack_sequence([[TINY, HUGE], [1]]), nbp.pack_ragged([[TINY], [HUGE]])
    yield nbp.unpad_sequence(rows, [5, 2, 3]), nbp.pack_padded_sequence(rows, [5, 2, 3])
    yield nbp.concatenate([packed, packed]), nbp.select(packed, [1, 0]), packed.lengths
    yield nbp.unpack_sequence(packed), nbp.unpack_ragged(packed), packed.each(np.array), packed.map(np.array)
    yield nbp.packing_report([3, 2], 4, 5), nbp.invert_permutation([1, 0])


def plain(value):
    """The bits of all arrays and numbers within a result."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return None if value is None else (np.asarray(value).dtype, np.asarray(value).tobytes())


@pytest.mark.parametrize("dtype", helpers.DTYPES)
@pytest.mark.parametrize("what", [layers_run, parameters_made, steps_taken, parts_run, batches_made])
def test_results_are_the_same_where_errors_and_warnings_are_raised(what, dtype):
    with np.errstate(all="ignore"):
        expected = [plain(result) for result in what(dtype)]
    with np.errstate(all="warn"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [plain(result) for result in what(dtype)] == expected
    with np.errstate(all="raise"):
        assert [plain(result) for result in what(dtype)] == expected


def test_a_process_in_which_warnings_are_errors_imports_and_runs():
    script = (
        "import numpy; numpy.seterr(all='raise'); import numba_pack as nbp; nbp.warmup(nbp.GRU(2, 3), training=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, env=environment)
