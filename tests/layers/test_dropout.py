"""Dropout between layers: its generator, its masks as they show in the output, and its gradients."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import helpers
import naive
import numpy as np
import pytest
from helpers import CELLS, DTYPES, LENGTHS, assert_same_bits, make_case, make_layer
from numba import njit

import numba_pack as nbp
from numba_pack.cells.dropout import Calls, philox
from numba_pack.cpu import engine

# From kat_vectors of the Random123 library: counter, key, words of philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(int(word, 16) for word in text.split())


@njit
def philox_compiled(counter):
    return philox(counter[0], counter[1], counter[2], counter[3], counter[4], counter[5])


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_the_generator_gives_the_known_answers(counter, key, expected):
    got = philox_compiled(np.array(words(counter) + words(key), np.uint64))
    assert tuple(map(int, got)) == words(expected)
    assert naive.philox(words(counter), words(key)) == words(expected)


# -- masks as they show ------------------------------------------------------------------------------------------------


def window(H, rate, num_layers=2, bidirectional=False, dtype=np.float64, seed=0):
    """A layer whose output is the mask itself: layer 0 gives ones, those above pass their input on.

    With more than two layers the output is the product of their masks. In both directions the first H columns are
    passed on forward, the others in reverse.
    """
    layer = nbp.RNN(
        1, H, num_layers, "relu", dropout=rate, bidirectional=bidirectional, dtype=dtype, rng=seed
    )  # fmt: skip
    vector = np.zeros_like(layer.parameters)
    for name, value in layer.views(vector).items():
        if name.startswith("bias_ih_l0"):
            value[:] = 1
        elif name.startswith("weight_ih_l") and not name.startswith("weight_ih_l0"):
            value[:, H * name.endswith("reverse") :][:, :H] = np.eye(H)
    layer.parameters = vector
    return layer


def batch(lengths, dtype=np.float64):
    return nbp.pack_sequence([np.zeros((n, 1), dtype) for n in lengths])


def masks_of(layer, lengths):
    """The mask of the next call, for each sequence (T_i, D * H)."""
    return nbp.unpack_sequence(layer.forward(batch(lengths, layer.dtype))[0])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_units_are_zero_or_divided_by_the_share_that_is_kept_as_the_generator_says(rate, dtype, bidirectional):
    layer = window(6, rate, bidirectional=bidirectional, dtype=dtype)
    for call in range(2):
        expected = naive.dropout_masks(rate, layer._training_calls.seed, call, LENGTHS, 2, 6 * layer.num_directions)[0]
        for got, mask in zip(masks_of(layer, LENGTHS), expected, strict=True):
            np.testing.assert_array_equal(got, mask.astype(dtype))


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.85])
def test_the_share_that_is_dropped_is_the_rate_within_binomial_bounds(rate):
    dropped = np.stack(masks_of(window(50, rate), [40] * 60)) == 0  # (sequences, steps, units)
    for kept_apart in ((), (0,), (1,), (2,)):  # over all, and so for each sequence, step and unit
        means = dropped.mean(tuple({0, 1, 2} - set(kept_apart)))
        n = dropped.size / means.size
        np.testing.assert_allclose(means, rate, rtol=0, atol=5 * np.sqrt(rate * (1 - rate) / n))


def agreement(one, other):
    """Share of the places where both drop or both keep."""
    return np.mean((np.concatenate(one) == 0) == (np.concatenate(other) == 0))


def test_each_call_layer_sequence_step_and_seed_drops_others():
    rate, lengths = 0.5, [40] * 50
    layer = window(50, rate)
    first, second = masks_of(layer, lengths), masks_of(layer, lengths)
    other_seed = masks_of(window(50, rate, seed=1), lengths)
    both_layers = masks_of(window(50, rate, num_layers=3), lengths)  # the product of two masks
    expected = 0.5  # both dropped or both kept
    bound = 5 * np.sqrt(0.25 / 100_000)
    assert agreement(first, second) == pytest.approx(expected, abs=bound)
    assert agreement(first, other_seed) == pytest.approx(expected, abs=bound)
    assert agreement(first, first[1:] + first[:1]) == pytest.approx(expected, abs=bound)
    assert agreement(first, [np.roll(mask, 1, axis=0) for mask in first]) == pytest.approx(expected, abs=bound)
    assert agreement(first, [np.roll(mask, 1, axis=1) for mask in first]) == pytest.approx(expected, abs=bound)
    assert np.mean(np.concatenate(both_layers) != 0) == pytest.approx(0.25, abs=bound)


def test_each_layer_drops_as_the_generator_says():
    layer = window(6, 0.3, num_layers=4)
    masks = naive.dropout_masks(0.3, layer._training_calls.seed, 0, LENGTHS, 4, 6)
    for got, *expected in zip(masks_of(layer, LENGTHS), *masks, strict=True):
        np.testing.assert_allclose(got, np.prod(expected, axis=0), rtol=4 * np.finfo(float).eps)


def test_the_mask_of_a_sequence_is_that_of_its_number_whatever_the_batch():
    """Of the sequence's number in the caller's order, that is; the others, and its own length, do not matter."""
    expected = masks_of(window(6, 0.5), [9] * 5)
    for lengths in ([9, 9, 9, 9, 9], [1, 5, 0, 9, 2], [0, 0, 0, 0, 3], [9, 8, 7, 6, 5], [4]):
        for got, whole, n in zip(masks_of(window(6, 0.5), lengths), expected, lengths, strict=False):
            np.testing.assert_array_equal(got, whole[:n])


def test_the_mask_is_the_same_for_packed_and_padded_input():
    expected = np.stack(masks_of(window(6, 0.5), [7] * 4), 1)
    output, *_ = window(6, 0.5).forward(np.zeros((7, 4, 1)))
    np.testing.assert_array_equal(output, expected)
    output, *_ = window(6, 0.5).forward(np.zeros((7, 1)))
    np.testing.assert_array_equal(output, expected[:, 0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("n", [2, 4], ids=lambda n: f"{n}-threads")
def test_results_and_gradients_with_dropout_do_not_depend_on_threads(cell, n, monkeypatch):
    layer = make_layer(cell, 4, 7, num_layers=3, bidirectional=True, dropout=0.5)
    same = copy.deepcopy(layer)
    case = make_case(layer, LENGTHS)
    with nbp.threads(1):
        expected = helpers.train(layer, case)
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    with nbp.threads(n):
        assert_same_bits(helpers.train(same, case), expected)


# -- what it means for a layer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_results_and_gradients_are_those_of_the_definition_with_the_same_masks(cell, dtype, bidirectional):
    layer = make_layer(cell, 3, 7, num_layers=3, dropout=0.4, bidirectional=bidirectional, dtype=dtype)
    case = make_case(layer, LENGTHS)
    columns = layer.num_directions * layer.output_size
    for call in range(2):
        masks = naive.dropout_masks(0.4, layer._training_calls.seed, call, LENGTHS, 3, columns)
        expected = helpers.oracle(layer, case, masks)
        helpers.assert_results_near(layer, LENGTHS, helpers.train(layer, case), expected)


@pytest.mark.parametrize("cell", CELLS)
def test_inference_drops_nothing_and_does_not_count_as_a_call(cell):
    with_dropout, without = (make_layer(cell, 3, 4, num_layers=2, dropout=rate) for rate in (0.9, 0.0))
    case = make_case(without, LENGTHS)
    twin = copy.deepcopy(with_dropout)
    assert_same_bits(helpers.infer(with_dropout, case), helpers.infer(without, case))
    assert_same_bits(helpers.train(with_dropout, case), helpers.train(twin, case))


@pytest.mark.parametrize("cell", CELLS)
def test_a_rate_of_zero_drops_nothing(cell):
    layer = make_layer(cell, 3, 4, num_layers=2, dropout=0.0)
    case = make_case(layer, LENGTHS)
    results = helpers.train(layer, case)
    assert_same_bits((results.outputs, results.state), helpers.infer(layer, case))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_rate_of_one_drops_all(cell, dtype):
    layer = make_layer(cell, 3, 4, num_layers=2, bidirectional=True, dropout=1, dtype=dtype)
    case = make_case(layer, LENGTHS)._replace(d_state=None)  # the state of layer 0 would bring its own
    results = helpers.train(layer, case)
    nothing = [[np.zeros((n, 2 * layer.output_size)) for n in LENGTHS]]
    helpers.assert_results_near(layer, LENGTHS, results, helpers.oracle(layer, case, nothing))
    assert not any(d.any() for d in results.d_inputs)
    assert not results.d_parameters["weight_ih_l1"].any()


# -- which calls drop the same -----------------------------------------------------------------------------------------

COPIES = {
    "deep copy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "folded": lambda layer: nbp.fold_embedding(layer, np.ones((1, 1))),
}


def test_two_layers_of_one_seed_drop_the_same():
    assert_same_bits(masks_of(window(6, 0.5), LENGTHS), masks_of(window(6, 0.5), LENGTHS))


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_layer_with_a_seed_goes_on_from_where_the_original_stood(make):
    layer = window(6, 0.5)
    first = masks_of(layer, LENGTHS)
    copied = make(layer)
    theirs = [masks_of(copied, LENGTHS) for _ in range(2)]
    assert_same_bits(theirs, [masks_of(layer, LENGTHS) for _ in range(2)])
    assert agreement(first, theirs[0]) < 1


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_layer_without_a_seed_drops_units_of_its_own(make):
    layer = window(6, 0.5, seed=None)
    masks = [np.concatenate(masks_of(each, LENGTHS)).tobytes() for each in (layer, make(layer), make(layer))]
    assert len(set(masks)) == 3


def test_a_shallow_copy_counts_its_own_calls():
    layer = window(6, 0.5)
    other = copy.copy(layer)
    assert_same_bits(masks_of(layer, LENGTHS), masks_of(other, LENGTHS))


def test_warmup_does_not_count_as_a_call():
    warm, cold = window(6, 0.5), window(6, 0.5)
    nbp.warmup(warm, training=True)
    assert_same_bits(masks_of(warm, LENGTHS), masks_of(cold, LENGTHS))


def test_calls_of_many_threads_at_once_have_numbers_of_their_own():
    calls, before = Calls(0, seeded=False), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as executor:
            made = list(executor.map(lambda _: calls.next(0.5), range(20_000)))
    finally:
        sys.setswitchinterval(before)
    assert len(set(made)) == 20_000
    assert calls.next(0.5).call == 20_000


def test_training_calls_of_many_threads_drop_units_of_their_own():
    layer, x = window(64, 0.5), np.zeros((2, 1))
    layer.forward(x)
    with ThreadPoolExecutor(8) as executor:
        outputs = set(executor.map(lambda _: layer.forward(x)[0].tobytes(), range(500)))
    assert len(outputs) == 500


# Prints, for a layer with a seed and one without, digests of what a process, its forked children and its grandchild
# drop, and of their gradients of a call that was made before the fork; then of what a layer drops that each makes for
# itself, and of such parameters.
FORKS = """
import hashlib, os, sys, warnings
import numpy as np
import numba_pack as nbp

warnings.simplefilter("ignore", DeprecationWarning)
x = np.ones((3, 1, 2), np.float32)
layers = [nbp.GRU(2, 64, num_layers=2, dropout=0.5, rng=rng) for rng in (0, None)]
tapes = [layer.forward(x) for layer in layers]

def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]

def tell(who):
    gradients = [digest(layer.backward(tape, output).parameters) for layer, (output, _, tape) in zip(layers, tapes)]
    made = nbp.GRU(2, 64, num_layers=2, dropout=0.5, rng=0)
    drops = [digest(layer.forward(x)[0]) for layer in (*layers, made)]
    print(who, *gradients, *drops, digest(nbp.GRU(2, 64).parameters), flush=True)

def fork(who, then=lambda: None):
    if os.fork() == 0:
        then()
        tell(who)
        os._exit(0)
    assert os.wait()[1] == 0

fork("child")
fork("child", lambda: fork("grandchild"))
tell("parent")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_drops_units_of_its_own_with_a_seed_the_same_in_each_run():
    runs = []
    for _ in range(2):
        process = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True)
        rows = [line.split() for line in process.stdout.splitlines()]
        assert [who for who, *_ in rows] == ["child", "grandchild", "child", "parent"], process.stderr
        _, seeded_gradients, gradients, seeded, unseeded, made, parameters = zip(*rows, strict=True)
        assert len(set(seeded_gradients)) == len(set(gradients)) == 1  # the call was made before the fork
        assert len(set(seeded)) == len(set(unseeded)) == len(set(parameters)) == 4
        assert len(set(made)) == 1
        runs.append((seeded, unseeded))
    (seeded, unseeded), (seeded_again, unseeded_again) = runs
    assert seeded == seeded_again
    assert not set(unseeded) & set(unseeded_again)


def test_the_layers_of_a_file_can_be_given_a_seed(tmp_path):
    pytest.importorskip("safetensors", reason="files need it")
    path = tmp_path / "layers.safetensors"
    nbp.save(path, {"one": window(6, 0.5, dtype=np.float32), "two": window(6, 0.5, dtype=np.float32)})

    def drops(rng):
        return [np.concatenate(masks_of(layer, LENGTHS)) for layer in nbp.load(path, rng=rng).values()]

    assert_same_bits(drops(3), drops(3))
    assert_same_bits(drops(3), drops(np.random.default_rng(3)))
    assert len({mask.tobytes() for mask in drops(3) + drops(4) + drops(None) + drops(None)}) == 8


def test_a_layer_of_pytorch_can_be_given_a_seed():
    torch = pytest.importorskip("torch", reason="what is tested here takes its modules")
    module = torch.nn.GRU(1, 6, num_layers=2, dropout=0.5)

    def drops(rng):
        layer = nbp.interop.torch.from_torch(module, rng=rng)
        return layer.forward(np.ones((9, 1), np.float32))[0]

    assert_same_bits(drops(3), drops(3))
    assert len({output.tobytes() for output in (drops(3), drops(4), drops(None), drops(None))}) == 4


@pytest.mark.parametrize("make", [nbp.RNN, nbp.LSTM, nbp.GRU])
def test_dropout_with_one_layer_is_warned_of_where_it_is_asked_for(make):
    with pytest.warns(
        UserWarning, match=r"dropout is between layers, of which there is one: 0\.5 does nothing"
    ) as seen:
        make(3, 4, dropout=0.5)
    assert seen[0].filename == __file__
