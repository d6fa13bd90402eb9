"""What holds of every result in float32 holds in lower precision: bits, NaN and denormals; and how exact it is.

Which precisions differ depends on what multiplies. `test_engines.py` runs this file with each of the engines.
"""

import numpy as np
import pytest
from helpers import assert_same_bits, infer, of_sequences, train
from test_bits import LENGTHS, LONG, of_results, per_sequence, used  # noqa: F401  (a fixture)
from test_bits_layouts import divided
from test_cell_bits import make_case as make_case_of_any

import numba_pack as nbp
from numba_pack import cells
from numba_pack.cpu import precision as choice
from numba_pack.simd.machine import DOTS

SLOW = pytest.mark.slow
MAKERS = {
    "lstm": lambda **to: nbp.LSTM(7, 37, rng=0, **to),
    "lstm-proj": lambda **to: nbp.LSTM(7, 37, proj_size=21, rng=0, **to),
    "product": lambda **to: cells.GRUResetBefore(7, 37, rng=0, **to),
    "many-options": lambda **to: nbp.GRU(7, 36, heads=2, layer_norm=True, rng=0, **to),
}
#: of products with 44 numbers: how far a result may be from float64's, in parts of the largest
BOUNDS = {"highest": 1e-5, "high": 2e-4, "medium": 0.03, "int8": 0.05}
#: those that are not computed in float32, and those of them whose tests are quick ones
PRECISIONS, QUICK_PRECISIONS = ["medium", "int8"], ["medium", "int8"]
if DOTS.bfloat16 == "amx":
    PRECISIONS += ["high", "highest"]
    QUICK_PRECISIONS = ["highest", "int8"] if DOTS.plain_tiles else PRECISIONS  # loops take long to compile
QUICK = ["lstm", "lstm-proj"]


@pytest.fixture(autouse=True)
def parts_in_small_layers_too(monkeypatch):
    """So that small layers are computed in two and three parts, where large ones are."""
    monkeypatch.setattr(choice, "UNITS_OF_TWO", 1)
    monkeypatch.setattr(choice, "UNITS_OF_THREE", 1)


def every(precisions):
    return [
        pytest.param(
            name,
            precision,
            marks=() if name in QUICK and precision in QUICK_PRECISIONS else SLOW,
            id=f"{name}-{precision}",
        )
        for name in MAKERS
        for precision in precisions
    ]


def make(name, precision, **options):
    layer = MAKERS[name](**options)
    return layer.quantize("int8") if precision == "int8" else layer.with_precision(precision)


def make_case(layer, lengths, **options):
    case = make_case_of_any(layer, lengths, **options)
    P = layer.num_directions * layer.output_size
    d_state = case.d_state
    if layer.output_size != layer.hidden_size:  # which the other takes for equal
        rng = np.random.default_rng(5)

        def cut(state):
            return rng.standard_normal((*state[0].shape[:2], layer.output_size)).astype(layer.dtype), state[1]

        d_state = cut(case.d_state)
        hx = case.hx and cut(case.hx)
        return case._replace(hx=hx, d_state=d_state, d_outputs=[np.ascontiguousarray(d[:, :P]) for d in case.d_outputs])
    return case


@pytest.mark.parametrize(("name", "precision"), every(PRECISIONS))
def test_a_sequence_alone_or_in_another_order_gives_the_bits_that_it_gives_in_a_batch(name, precision):
    layer = make(name, precision, num_layers=2, bidirectional=True)
    case = make_case(layer, LENGTHS)
    order = list(np.random.default_rng(4).permutation(len(LENGTHS)))
    plain = infer(layer, case)
    for chosen in [[i] for i in range(len(LENGTHS))] + [order]:
        found = infer(layer, of_sequences(case, chosen))
        assert_same_bits(found, ([plain[0][i] for i in chosen], tuple(part[:, chosen] for part in plain[1])))
    if precision != "int8":
        batch = train(layer, case)
        assert_same_bits((batch.outputs, batch.state), plain)
        for chosen in [[0], [3], order]:
            found = train(layer, of_sequences(case, chosen))
            assert_same_bits(per_sequence(found), of_results(batch, chosen))


@pytest.mark.parametrize(("name", "precision"), every(PRECISIONS))
def test_threads_change_no_bit(name, precision, used):  # noqa: F811
    layer = make(name, precision)
    case = make_case(layer, LONG)
    run = infer if precision == "int8" else train
    with nbp.threads(1):
        expected = run(layer, case)
    assert_same_bits(divided(run, layer, case, threads=3), expected)
    with nbp.threads(2):
        assert_same_bits(run(layer, case), expected)


@pytest.mark.parametrize(("name", "precision"), every(PRECISIONS))
def test_chunks_with_the_state_carried_equal_the_whole(name, precision):
    layer = make(name, precision)
    case = make_case(layer, LENGTHS)
    whole = infer(layer, case)
    outputs, hx = [], case.hx
    for part in (slice(0, 1), slice(1, 6), slice(6, None)):
        some, state = infer(layer, case._replace(sequences=[x[part] for x in case.sequences], hx=hx))
        hx = state if layer.cell.states > 1 else state[0]
        outputs.append(some)
    assert_same_bits([np.concatenate(parts) for parts in zip(*outputs, strict=True)], whole[0])
    assert_same_bits(state, whole[1])


@pytest.mark.parametrize(("name", "precision"), every(PRECISIONS))
def test_symbols_give_the_bits_of_their_one_hot_rows(name, precision):
    layer = make(name, precision)
    text = [np.random.default_rng(n).integers(0, 7, n) for n in (9, 3, 17)]
    rows = [np.eye(7, dtype=np.float32)[symbols] for symbols in text]
    found, expected = (layer(nbp.pack_sequence(of))[0].data for of in (text, rows))
    np.testing.assert_array_equal(found, expected)
    if precision != "int8":
        gradients = []
        for given in (text, rows):
            output, _, tape = layer.forward(nbp.pack_sequence(given))
            gradients.append(layer.backward(tape, output).parameters)
        # those of rows are summed of products in pairs of rows, those of symbols one by one, and in float32
        bound = BOUNDS[precision] * np.abs(gradients[1]).max()
        np.testing.assert_allclose(*gradients, rtol=0, atol=bound)


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "precision"), every(PRECISIONS))
def test_what_is_not_finite_stays_in_its_sequence(name, precision, what):
    layer = make(name, precision)
    case = make_case(layer, LENGTHS)
    spoilt = case._replace(sequences=[x.copy() for x in case.sequences])
    spoilt.sequences[3][2, 5] = what
    others = [i for i in range(len(LENGTHS)) if i != 3]
    with np.errstate(all="ignore"):
        found = infer(layer, spoilt)
        assert_same_bits([found[0][i] for i in others], [infer(layer, case)[0][i] for i in others])
        if np.isnan(what):
            assert np.isnan(found[0][3][2:]).any(1).all() and np.isfinite(found[0][3][:2]).all()
        if precision != "int8":
            trained, clean = train(layer, spoilt), train(layer, case)
            assert_same_bits(of_results(trained, others), of_results(clean, others))


@pytest.mark.parametrize(("name", "precision"), every(PRECISIONS))
def test_it_is_as_exact_as_its_factors(name, precision):
    layer, exact = make(name, precision), MAKERS[name](dtype=np.float64)
    exact.load_state_dict(MAKERS[name]().state_dict())
    case = make_case(layer, LENGTHS, with_hx=False)
    wide = type(case)(*(None if part is None else _wide(part) for part in case))
    run, bound = (infer if precision == "int8" else train), BOUNDS[precision]
    found, expected = run(layer, case), run(exact, wide)
    pairs = list(zip(_leaves(found), _leaves(expected), strict=True))
    assert pairs
    for got, right in pairs:
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, right, rtol=0, atol=bound * max(1.0, np.abs(right).max(initial=0.0)))
    if precision in ("medium", "int8"):  # and no more exact than them
        assert max(np.abs(got - right).max(initial=0.0) for got, right in pairs) > 1e-5


def _wide(value):
    return value.astype(float) if isinstance(value, np.ndarray) else type(value)(_wide(part) for part in value)


def _leaves(value):
    if isinstance(value, np.ndarray):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [array for part in parts for array in _leaves(part)]


@pytest.mark.parametrize("precision", QUICK_PRECISIONS)
def test_denormals_are_zeros_whatever_the_mode_of_the_caller(precision):
    layer = make("lstm", precision)
    x = np.full((3, 7), 1e-41, np.float32)
    assert_same_bits(layer(x)[0], layer(np.zeros_like(x))[0])
