"""The floating-point mode of the calling thread: kernels neither depend on it nor change it."""

import ctypes
import ctypes.util
import threading

import numpy as np
import pytest
from helpers import CELLS, LENGTHS, assert_same_bits, infer, make_case, make_layer, train
from numba import njit

import numba_pack as nbp
from numba_pack.cpu import engine
from numba_pack.simd.machine import ARCHITECTURE
from numba_pack.simd.modes import put_back_mode, take_mode

pytestmark = pytest.mark.skipif(
    ARCHITECTURE not in ("x86_64", "aarch64"), reason="the mode of this processor is left as it is"
)

libm = ctypes.CDLL(ctypes.util.find_library("m"))
ROUNDINGS = {"x86_64": {"up": 0x800, "down": 0x400}, "aarch64": {"up": 0x400000, "down": 0x800000}}.get(
    ARCHITECTURE, {}
)


@njit
def flush():
    return take_mode()


@njit
def put_back(mode):
    put_back_mode(mode)


def flushes():
    """Whether this thread takes denormal numbers for zero."""
    return bool(np.array([np.finfo(np.float32).tiny], np.float32) / np.float32(4) == 0)


def in_mode(mode, function):
    """What a function returns in a thread in a mode, and whether the thread is in that mode afterwards."""

    def call():
        if mode == "flush":
            flush()
        else:
            assert libm.fesetround(ROUNDINGS[mode]) == 0
        before = libm.fegetround(), flushes()
        result.append(function())
        result.append(before == (libm.fegetround(), flushes()))

    result = []
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return result


def test_the_mode_is_taken_and_put_back():
    assert not flushes()
    mode = flush()
    taken = flushes()
    put_back(mode)
    assert taken and not flushes()


@pytest.mark.parametrize("mode", ["flush", *ROUNDINGS])
def test_so_it_is_with_losses(mode):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((12, 19), np.float32) * np.where(np.arange(19) % 3, 1, np.float32(1e-39))
    labels, targets = np.arange(12), rng.random((12, 19), np.float32)

    def call():
        return [
            nbp.losses.softmax_cross_entropy(logits, labels),
            nbp.losses.binary_cross_entropy(logits, targets),
            nbp.losses.huber(logits, targets),
            nbp.losses.ctc(logits[:, None], [labels[1:5]], reduction="none"),
        ]

    found, unchanged = in_mode(mode, call)
    assert unchanged
    for (loss, gradient), (expected, d_expected) in zip(found, call(), strict=True):
        assert loss == expected and gradient.tobytes() == d_expected.tobytes()


@pytest.mark.parametrize("mode", ["flush", *ROUNDINGS])
def test_so_it_is_with_attention_and_sums_by_sequence(mode):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((sum(LENGTHS), 19), np.float32) * np.where(np.arange(19) % 3, 1, np.float32(1e-39))
    batch = nbp.pack_ragged(rows, np.cumsum([0, *LENGTHS]))

    def call():
        context, weights = nbp.attend(batch, batch, batch)
        output = nbp.packed_softmax(batch)
        back = nbp.attend_backward(batch, batch, batch, weights, batch), nbp.packed_softmax_backward(output, batch)
        return context, weights, output, back, nbp.sum_by_sequence(batch)

    expected = call()
    found, kept = in_mode(mode, call)
    assert kept
    assert_same_bits(found, expected)


@pytest.mark.parametrize("mode", ["flush", *ROUNDINGS])
@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_depend_on_the_mode_of_the_caller_and_leave_it_alone(cell, mode, monkeypatch):
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    layer = make_layer(cell, 3, 19, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)
    parameters = layer.parameters * np.where(
        np.arange(layer.parameters.size) % 3, 1, np.float32(1e-39)
    )  # some denormal

    def call():
        layer.parameters = parameters  # which are packed in this mode
        with nbp.threads(2):
            return train(layer, case), infer(layer, case)

    expected = call()
    got, unchanged = in_mode(mode, call)
    assert_same_bits(got, expected)
    assert unchanged


@pytest.mark.parametrize("mode", ["flush", *ROUNDINGS])
def test_nor_in_compiled_code(mode):
    layer = make_layer("gru", 3, 19)
    packed = nbp.pack_sequence(make_case(layer, LENGTHS).sequences)

    @njit
    def gradient(packed, weights):
        output, _, tape = nbp.gru_forward(packed, weights)
        return nbp.gru_backward(tape, output).parameters

    expected = gradient(packed, layer.weights)
    got, unchanged = in_mode(mode, lambda: gradient(packed, layer.weights))
    assert_same_bits(got, expected)
    assert unchanged
