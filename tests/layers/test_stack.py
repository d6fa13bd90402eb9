"""Layers of different widths: of equal ones as one layer, bit for bit; and else against the oracle, layer by layer."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import naive
import naive_cells
import numpy as np
import pytest
from helpers import CELLS, LENGTHS, Case, as_tuple, assert_near, assert_same_bits, make_case, make_layer, normal, oracle

import numba_pack as nbp
from numba_pack.cpu import engine
from numba_pack.layers.layer import Layer
from numba_pack.layers.stack import Stack

I = 3  # noqa: E741


def by_layer(state, layer):
    """A state of one layer of L as the list that a stack has."""
    L, D = layer.num_layers, layer.num_directions
    parts = [np.split(part, L) for part in as_tuple(state)]
    assert all(len(part[0]) == D for part in parts)
    return [list(of_layer) if len(of_layer) > 1 else of_layer[0] for of_layer in zip(*parts, strict=True)]


def in_tuples(states):
    return [as_tuple(tuple(state) if isinstance(state, list) else state) for state in states]


def assert_equal_widths_are_one_layer(layer, stack, input, hx, d_output, d_state):
    """A call, and two steps of training, to the same bits."""
    assert_same_bits(stack.parameters, layer.parameters)
    listed = None if hx is None else by_layer(hx, layer)
    listed = None if listed is None else [tuple(x) if isinstance(x, list) else x for x in listed]
    output, state = layer(input, hx)
    got, got_state = stack(input, listed)
    assert_same_bits(list(as_tuple(got)), list(as_tuple(output)))
    assert_same_bits(in_tuples(got_state), in_tuples(by_layer(state, layer)))
    d_listed = [tuple(x) if isinstance(x, list) else x for x in by_layer(d_state, layer)]
    for step in range(2):
        output, state, tape = layer.forward(input, hx)
        got, got_state, got_tape = stack.forward(input, listed)
        assert_same_bits(list(as_tuple(got)), list(as_tuple(output)), f"outputs {step}")
        assert_same_bits(in_tuples(got_state), in_tuples(by_layer(state, layer)), f"states {step}")
        expected = layer.backward(tape, d_output, d_state)
        found = stack.backward(got_tape, d_output, d_listed)
        if expected.input is None:
            assert found.input is None
        else:
            assert_same_bits(list(as_tuple(found.input)), list(as_tuple(expected.input)), f"d_input {step}")
        assert_same_bits(in_tuples(found.hx), in_tuples(by_layer(expected.hx, layer)), f"d_hx {step}")
        assert_same_bits(found.parameters, expected.parameters, f"d_parameters {step}")


WAYS = {
    "plain": {},
    "bidirectional": {"bidirectional": True},
    "dropout": {"bidirectional": True, "dropout": 0.4},
    "every mask": {"bidirectional": True, "dropout": 0.4, "recurrent_dropout": 0.3, "zoneout": 0.2},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        pytest.param(
            cell, options, id=f"{cell}-{way}", marks=[pytest.mark.slow] * (way == "every mask" and cell != "gru")
        )
        for cell in CELLS
        for way, options in WAYS.items()
        if (cell, way) != ("lstm-proj", "every mask")  # zoneout is not for projections
    ],
)
def test_a_stack_of_equal_widths_is_one_layer_bit_for_bit(cell, options):
    layer, stack = make_layer(cell, I, 19, num_layers=3, **options), make_layer_of_list(cell, [19] * 3, **options)
    case = make_case(layer, LENGTHS)
    packed, d_output = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
    assert_equal_widths_are_one_layer(layer, stack, packed, case.hx, d_output, case.d_state)
    assert_equal_widths_are_one_layer(layer, stack, packed, None, d_output, case.d_state)


def make_layer_of_list(cell, widths, **options):
    """`make_layer`, which chooses proj_size by the width, for the smallest of several."""
    if cell == "lstm-proj":
        return nbp.LSTM(I, widths, proj_size=2 * min(widths) // 3, **{"rng": 0, **options})
    return make_layer(cell, I, widths, **options)


@pytest.mark.parametrize(
    "name",
    [
        "PeepholeLSTM",
        "SLSTM",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("IndRNN", "LeakyRNN", "MinGRU")),
    ],
)
def test_so_is_one_of_any_cell(name):
    cell, rng = getattr(nbp.cells, name), np.random.default_rng(1)
    options = {"bidirectional": True, "dropout": 0.4, "dtype": "f8", "rng": 3}
    if name == "LeakyRNN":
        options |= {"dt": 0.5, "tau": 3.0}
    if name == "SLSTM":
        options |= {"heads": 2, "bidirectional": False, "reverse": True}
    layer, stack = cell(I, 6, num_layers=2, **options), cell(I, [6, 6], **options)
    x = nbp.pack_sequence([rng.standard_normal((n, I)) for n in LENGTHS])
    output, state = layer(x)
    d_state = tuple(rng.standard_normal(part.shape) for part in as_tuple(state))
    d_state = d_state if isinstance(state, tuple) else d_state[0]
    assert_equal_widths_are_one_layer(layer, stack, x, None, output, d_state)


FORMS = {
    "padded": (lambda rng: normal(rng, (6, 4, I), "f4"), {}),
    "batch first": (lambda rng: normal(rng, (4, 6, I), "f4"), {"batch_first": True}),
    "single": (lambda rng: normal(rng, (6, I), "f4"), {}),
    "symbols": (lambda rng: nbp.pack_sequence([rng.integers(0, I, n) for n in LENGTHS]), {}),
    "padded symbols": (lambda rng: nbp.symbols(rng.integers(0, I, (6, 4))), {}),
    "all states": (lambda rng: normal(rng, (6, 4, I), "f4"), {"return_states": True}),
    "empty": (lambda rng: np.empty((0, 4, I), "f4"), {}),
}


@pytest.mark.parametrize(("make", "options"), FORMS.values(), ids=FORMS)
def test_every_form_of_input_goes_through_a_stack_as_through_one_layer(make, options):
    options = {"bidirectional": True, "dropout": 0.4, "rng": 0, **options}
    layer, stack = nbp.LSTM(I, 5, num_layers=2, **options), nbp.LSTM(I, [5, 5], **options)
    x = make(np.random.default_rng(2))
    output, state = layer(x)
    assert_equal_widths_are_one_layer(layer, stack, x, None, output, state)


def test_a_state_for_all_sequences_goes_to_the_layer_whose_it_is():
    layer, stack = nbp.GRU(I, 5, num_layers=2, rng=0), nbp.GRU(I, [5, 5], rng=0)
    x, h_0 = normal(np.random.default_rng(0), (6, 4, I), "f4"), normal(np.random.default_rng(1), (2, 1, 5), "f4")
    output, h_n, tape = layer.forward(x, h_0)
    got, state, got_tape = stack.forward(x, [h_0[:1], h_0[1:]])
    expected, found = layer.backward(tape, output, h_n), stack.backward(got_tape, output, state)
    assert_same_bits(got, output)
    assert_same_bits(np.concatenate(found.hx), expected.hx)
    mixed, _, got_tape = stack.forward(x, [None, h_0[1:]])
    assert_same_bits(mixed, layer(x, np.concatenate([np.zeros_like(h_0[:1]), h_0[1:]]))[0])
    assert [d.shape for d in stack.backward(got_tape, output).hx] == [(1, 4, 5), (1, 1, 5)]


# -- different widths --------------------------------------------------------------------------------------------------


def chained(stack, case, masks=None):
    """What the oracle of the layers gives for one after the other: by layer, and the gradient of the input."""
    layers, inputs, found = stack.layers, [case.sequences], []
    masks = masks or [None] * (len(layers) - 1)
    for layer, hx, d_state, mask in zip(layers, case.hx, case.d_state, [*masks, None], strict=True):
        zeros = [np.zeros((n, layer.num_directions * layer.output_size)) for n in map(len, case.sequences)]
        found.append((layer, inputs[-1], hx, d_state, mask))
        outputs = oracle(layer, Case(inputs[-1], hx, zeros, d_state)).outputs
        inputs.append(outputs if mask is None else [y * m for y, m in zip(outputs, mask, strict=True)])
    d_outputs, results = case.d_outputs, []
    for layer, x, hx, d_state, mask in found[::-1]:
        if mask is not None:
            d_outputs = [d * m for d, m in zip(d_outputs, mask, strict=True)]
        results.insert(0, oracle(layer, Case(x, hx, d_outputs, d_state)))
        d_outputs = results[0].d_inputs
    return results


def case_of(stack, lengths=LENGTHS):
    """Random numbers for all that goes in: as `make_case`, with a list of states."""
    rng, dtype, layers = np.random.default_rng(1), stack.dtype, stack.layers
    cases = [make_case(layer, lengths, rng=i) for i, layer in enumerate(layers)]
    D, P = stack.num_directions, stack.output_size
    return Case(
        [normal(rng, (n, I), dtype) for n in lengths],
        [case.hx for case in cases],
        [normal(rng, (n, D * P), dtype) for n in lengths],
        [case.d_state for case in cases],
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_is_its_layers_one_after_the_other(cell, dropout):
    stack = make_layer_of_list(cell, (7, 19, 4), bidirectional=True, dropout=dropout)
    case, D = case_of(stack), 2
    masks = None
    if dropout:
        masks = [
            naive.dropout_masks(dropout, stack._training_calls.seed, 0, LENGTHS, 3, D * layer.output_size)[i]
            for i, layer in enumerate(stack.layers[:-1])
        ]
    expected = chained(stack, case, masks)
    output, state, tape = stack.forward(nbp.pack_sequence(case.sequences), case.hx)
    gradients = stack.backward(tape, nbp.pack_sequence(case.d_outputs), case.d_state)
    sizes = SimpleNamespace(
        input_size=I, hidden_size=19, output_size=19, num_layers=3, num_directions=D, dtype=stack.dtype
    )
    assert_near(sizes, LENGTHS, nbp.unpack_sequence(output), expected[-1].outputs, "outputs")
    assert_near(sizes, LENGTHS, nbp.unpack_sequence(gradients.input), expected[0].d_inputs, "d_inputs")
    for i, of_layer in enumerate(expected):
        assert_near(sizes, LENGTHS, as_tuple(state[i]), of_layer.state, f"state[{i}]")
        assert_near(sizes, LENGTHS, as_tuple(gradients.hx[i]), of_layer.d_hx, f"d_hx[{i}]")
        for name, value in of_layer.d_parameters.items():
            got = stack.views(gradients.parameters)[name.replace("_l0", f"_l{i}")]
            assert_near(sizes, LENGTHS, [got], [value], f"{name} of {i}")
    if not dropout:
        assert_same_bits(stack(nbp.pack_sequence(case.sequences), case.hx)[0].data, output.data)


def test_so_is_one_of_a_cell_with_unit_weights_and_four_states():
    stack = nbp.cells.SLSTM(I, [4, 6], heads=2, dtype="f8", rng=0)
    sequences = [normal(np.random.default_rng(i), (n, I), "f8") for i, n in enumerate((4, 1, 6))]
    output, state = stack(nbp.pack_sequence(sequences))
    for i, layer in enumerate(stack.layers):
        expected = naive_cells.run("SLSTM", layer.state_dict(), sequences)
        for got, one in zip(state[i], expected.states, strict=True):
            np.testing.assert_allclose(got, one, rtol=1e-12, atol=1e-12)
        sequences = expected.outputs
    for got, one in zip(nbp.unpack_sequence(output), sequences, strict=True):
        np.testing.assert_allclose(got, one, rtol=1e-12, atol=1e-12)


def test_gradients_are_the_slopes_of_what_a_call_returns():
    stack = nbp.cells.PeepholeLSTM(I, [4, 3, 2], bidirectional=True, dtype="f8", rng=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, I))
    hx = [tuple(rng.standard_normal((2, 2, units)) for _ in range(2)) for units in stack.hidden_size]
    output, state, tape = stack.forward(x, hx)
    d_output = rng.standard_normal(output.shape)
    d_state = [(rng.standard_normal(h.shape), None) for h, _ in state[:-1]] + [None]
    gradients = stack.backward(tape, d_output, d_state)

    def loss(x, hx, parameters):
        other = copy.copy(stack)
        other.parameters = parameters
        output, state = other(x, hx)
        of_states = (h * d[0] for (h, _), d in zip(state, d_state, strict=True) if d is not None)
        return (output * d_output).sum() + sum(part.sum() for part in of_states)

    def assert_slope(gradient, at):
        """The loss along a random line; ``at`` takes a step on it."""
        along = rng.standard_normal(gradient.shape)
        slope = (at(1e-5 * along) - at(-1e-5 * along)) / 2e-5
        np.testing.assert_allclose((gradient * along).sum(), slope, rtol=1e-7, atol=1e-8)

    def with_state(i, j, step):
        changed = [list(pair) for pair in hx]
        changed[i][j] = changed[i][j] + step
        return [tuple(pair) for pair in changed]

    assert_slope(gradients.input, lambda step: loss(x + step, hx, stack.parameters))
    for i in range(3):
        for j in range(2):
            gradient = gradients.hx[i][j]
            assert_slope(gradient, lambda step, i=i, j=j: loss(x, with_state(i, j, step), stack.parameters))
    for name, gradient in stack.views(gradients.parameters).items():

        def at(step, name=name):
            parameters = stack.parameters.copy()
            stack.views(parameters)[name] += step
            return loss(x, hx, parameters)

        assert_slope(gradient, at)


def test_compiled_code_runs_the_layers_one_after_the_other():
    stack = nbp.GRU(I, [6, 4], rng=0)
    packed = nbp.pack_sequence([normal(np.random.default_rng(i), (n, I), "f4") for i, n in enumerate(LENGTHS)])
    output, state = stack(packed)
    rows = packed
    for layer, h in zip(stack.layers, state, strict=True):
        rows, h_n = nbp.gru(rows, layer.weights)
        assert_same_bits(h_n, h)
    assert_same_bits(rows.data, output.data)


def test_threads_do_not_change_a_bit(monkeypatch):
    def results():
        stack = nbp.LSTM(I, [7, 19], dropout=0.5, rng=0)
        case = case_of(stack)
        output, state, tape = stack.forward(nbp.pack_sequence(case.sequences), case.hx)
        gradients = stack.backward(tape, nbp.pack_sequence(case.d_outputs), case.d_state)
        return [output.data, *state, gradients.input.data, *gradients.hx, gradients.parameters]

    alone = results()
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    with nbp.threads(3):
        assert_same_bits(results(), alone)


# -- parameters --------------------------------------------------------------------------------------------------------


def test_parameters_are_one_vector_with_pytorchs_names():
    stack = nbp.LSTM(I, [5, 4], bidirectional=True, proj_size=2, rng=0)
    shapes = {name: value.shape for name, value in stack.state_dict().items()}
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    assert list(shapes) == [f"{name}_l{i}{end}" for i in range(2) for end in ("", "_reverse") for name in names]
    assert shapes["weight_ih_l0"] == (20, I)
    assert shapes["weight_ih_l1_reverse"] == (16, 4)
    assert shapes["weight_hr_l1"] == (2, 4)
    assert not stack.parameters.flags.writeable
    assert not stack.state_dict()["weight_hh_l1"].flags.writeable
    assert_same_bits(np.concatenate([layer.parameters for layer in stack.layers]), stack.parameters)


def test_each_layer_draws_within_its_own_bounds():
    stack = nbp.GRU(I, [400, 25], rng=0)
    for layer in stack.layers:
        bound = 1 / np.sqrt(layer.hidden_size)
        assert 0.99 * bound < np.abs(layer.parameters).max() <= np.float32(bound)


def test_assigning_the_vector_sets_all_layers_and_leaves_those_that_were_taken():
    stack, x = nbp.GRU(I, [5, 4], rng=0), normal(np.random.default_rng(0), (6, I), "f4")
    before, taken = stack.parameters, stack.layers
    output, _ = stack(x)
    stack.parameters = before * 2
    assert_same_bits(np.concatenate([layer.parameters for layer in stack.layers]), before * 2)
    assert_same_bits(taken[1](taken[0](x)[0])[0], output)
    assert not np.array_equal(stack(x)[0], output)
    stack.load_state_dict(nbp.GRU(I, [5, 4], rng=0).state_dict())
    assert_same_bits(stack(x)[0], output)


def test_parameters_of_a_layer_that_was_taken_are_its_own():
    stack = nbp.GRU(I, [5, 4], rng=0)
    before, layer = stack.parameters, stack.layers[0]
    layer.parameters = layer.parameters * 2
    assert stack.parameters is before
    assert_same_bits(stack.layers[0].parameters, before[: layer.parameters.size])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda stack: pickle.loads(pickle.dumps(stack))])
def test_a_copy_goes_on_from_where_the_stack_stood_with_parameters_of_its_own(copied):
    stack = nbp.RNN(I, [5, 4], nonlinearity="relu", dropout=0.5, recurrent_dropout=0.2, rng=0)
    x = normal(np.random.default_rng(0), (6, 3, I), "f4")
    stack.forward(x)
    stack.note = ["kept"]
    other = copied(stack)
    assert (repr(other), other.note, type(other)) == (repr(stack), ["kept"], Stack)
    assert_same_bits(other.forward(x)[0], stack.forward(x)[0])
    before = stack.parameters
    other.parameters = np.zeros_like(before)
    assert_same_bits(stack.parameters, before)
    assert not other.parameters.flags.writeable
    assert not other.layers[1].parameters.flags.writeable


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_holds_the_parameters_once(protocol):
    layer, stack = nbp.GRU(100, 100, num_layers=2, rng=0), nbp.GRU(100, [100, 100], rng=0)
    pickled = pickle.dumps(stack, protocol)
    assert len(pickled) < 1.1 * len(pickle.dumps(layer, protocol))
    assert_same_bits(pickle.loads(pickled).parameters, stack.parameters)


# -- what else a layer has ---------------------------------------------------------------------------------------------

REPRS = [
    "LSTM(12, [64, 32], bidirectional=True)",
    "RNN(3, [4, 5, 6], nonlinearity='relu', bias=False, dropout=0.5)",
    "LSTM(3, [8], batch_first=True, proj_size=2, return_states=True, dtype=float64)",
    "GRU(3, [8, 4], recurrent_dropout=0.1, heads=2)",
]


@pytest.mark.parametrize("text", REPRS)
def test_a_repr_makes_the_same_stack(text):
    stack = eval(text, {name: getattr(nbp, name) for name in ("RNN", "LSTM", "GRU")} | {"float64": np.float64})
    assert isinstance(stack, Stack)
    assert repr(stack) == text


def test_a_cell_and_its_constants_are_told_too():
    stack = nbp.cells.LeakyRNN(3, (4, 5), tau=3.0, rng=0)
    assert repr(stack) == "LeakyRNN(3, [4, 5], tau=3.0)"
    assert (stack.tau, stack.hidden_size, stack.num_layers, stack.output_size) == (3.0, (4, 5), 2, 5)


def test_the_number_of_widths_may_be_told_as_well():
    assert repr(nbp.GRU(3, [4, 5], num_layers=2)) == "GRU(3, [4, 5])"


def test_options_can_be_neither_changed_nor_deleted():
    stack = nbp.RNN(3, [4, 5])
    for name in ("hidden_size", "num_layers", "dropout", "nonlinearity", "dtype", "output_size"):
        with pytest.raises(AttributeError, match=f"^{name} is fixed"):
            setattr(stack, name, getattr(stack, name))
        with pytest.raises(AttributeError, match=f"^{name} is fixed"):
            delattr(stack, name)


def test_a_tape_tells_what_it_keeps_and_is_used_up():
    x = normal(np.random.default_rng(0), (6, 3, I), "f4")
    options = {"bidirectional": True, "rng": 0}
    _, _, one = nbp.GRU(I, 5, num_layers=3, **options).forward(x)
    stack = nbp.GRU(I, [5] * 3, **options)
    output, _, tape = stack.forward(x)
    assert tape.nbytes == one.nbytes
    assert not output.flags.writeable
    stack.backward(tape, output)
    with pytest.raises(ValueError, match="tape must not have been used"):
        stack.backward(tape, output)
    with pytest.raises(ValueError, match="tape must come from a forward call of this GRU"):
        stack.layers[0].backward(stack.forward(x)[2])
    _, _, dropping = nbp.GRU(I, [5] * 3, dropout=0.5, **options).forward(x)
    assert dropping.nbytes == one.nbytes + 2 * 6 * 3 * 10 * 4


def test_a_tape_differentiates_the_call_that_was_made():
    stack, x = nbp.GRU(I, [5, 4], rng=0), normal(np.random.default_rng(0), (6, 3, I), "f4")
    output, _, tape = stack.forward(x)
    expected = stack.backward(tape, output)
    _, _, tape = stack.forward(x)
    stack.parameters = stack.parameters * 2
    assert_same_bits(list(stack.backward(tape, output)), list(expected))


def test_the_gradient_of_the_input_is_left_out_where_it_is_not_wanted():
    x, d_state = normal(np.random.default_rng(0), (6, 3, I), "f4"), [np.ones((1, 3, 5), "f4"), None]
    found = []
    for wanted in (True, False):
        stack = nbp.GRU(I, [5, 4], dropout=0.5, rng=0)
        found.append(stack.backward(stack.forward(x)[2], None, d_state, input_grad=wanted))
    assert found[0].input.shape == x.shape
    assert found[1].input is None
    assert_same_bits(found[1].parameters, found[0].parameters)


def test_warming_up_leaves_what_is_dropped_as_it_was():
    x = normal(np.random.default_rng(0), (6, 3, I), "f4")
    stack, other = (nbp.GRU(I, [5, 4], dropout=0.5, rng=0) for _ in range(2))
    nbp.warmup(stack, training=True)
    assert_same_bits(stack.forward(x)[0], other.forward(x)[0])


def test_an_embedding_is_folded_into_the_first_layer():
    stack, table = nbp.GRU(I, [5, 4], rng=0), np.linspace(-1, 1, 30).reshape(10, I)
    folded = nbp.fold_embedding(stack, table)
    symbols = np.array([3, 0, 9])
    assert repr(folded) == "GRU(10, [5, 4])"
    assert (stack.input_size, stack.layers[0].input_size) == (I, I)
    np.testing.assert_allclose(folded(symbols)[0], stack(table[symbols].astype("f4"))[0], rtol=1e-5, atol=1e-7)


# -- what is refused ---------------------------------------------------------------------------------------------------


class Encoder(nbp.LSTM):
    """A class of a user's."""


X = np.ones((6, 3, I), np.float32)
STACK = nbp.LSTM(I, [5, 4], rng=0)
GIVEN = [
    ("no width", ValueError, r"hidden_size must be an int, or a list of 1 .*; got a list of 0", {"hidden_size": []}),
    ("a width of 0", ValueError, r"hidden_size\[1\] must be at least 1; got 0", {"hidden_size": [3, 0]}),
    ("a list in a list", TypeError, r"hidden_size\[0\] must be an integer", {"hidden_size": [[3], 0]}),
    ("another number of layers", ValueError, r"num_layers must be left out, .* 2; got 3", {"num_layers": 3}),
    ("a large projection", ValueError, r"proj_size must be less than hidden_size, 4; got 4", {"proj_size": 4}),
    ("a rate above 1", ValueError, r"dropout must be at most 1; got 2", {"dropout": 2}),
    ("a flag that is a number", TypeError, r"return_states must be", {"return_states": 1}),
    ("heads that do not divide", ValueError, r"heads must divide .*5", {"heads": 2}),
    ("an option of no layer", TypeError, r"'layers'", {"layers": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words", "given"), [one[1:] for one in GIVEN], ids=[one[0] for one in GIVEN])
def test_a_stack_is_not_made_of(error, words, given):
    with pytest.raises(error, match=words):
        nbp.LSTM(**{"input_size": I, "hidden_size": [5, 4], **given})


def test_a_list_of_widths_makes_a_stack_of_layers_of_the_class_that_is_called():
    for make, kind in ((nbp.LSTM, nbp.LSTM), (nbp.cells.GRU, nbp.GRU), (nbp.cells.MGU, Layer)):
        for widths in ([5, 4], (5, 4)):
            stack = make(I, hidden_size=widths)
            assert type(stack) is Stack
            assert [type(layer) for layer in stack.layers] == [kind] * 2
        assert type(make(I, 5)) is kind


def test_a_class_of_a_users_has_layers_of_one_width():
    with pytest.raises(TypeError, match="hidden_size must be an integer"):
        Encoder(I, [5, 4])


def test_dropout_with_one_width_is_warned_of_where_the_stack_is_made():
    with pytest.warns(UserWarning, match="dropout is between layers, of which there is one") as caught:
        nbp.GRU(I, [5], dropout=0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nbp.GRU(I, [5, 4], dropout=0.5)


H0 = tuple(np.zeros((2, 1, 3, units), np.float32) for units in (5, 4))
CALLS = {
    "one state for both": (
        TypeError, r"hx must be a list of 2 states, one of each layer, or None; got numpy.ndarray", lambda: STACK(X, X)
    ),
    "three states": (TypeError, r"hx must be a list of 2 .*; got list of 3", lambda: STACK(X, [None] * 3)),
    "an array for a tuple": (
        TypeError, r"hx\[0\] must be a tuple of two arrays, h and c; got numpy.ndarray", lambda: STACK(X, tuple(H0[0]))
    ),
    "the width of the other layer": (
        ValueError, r"hx\[1\]\[0\] must have shape .* = \(1, 3, 4\); got", lambda: STACK(X, [None, tuple(H0[0])])
    ),
    "the state of a layer as a gradient": (
        TypeError, r"d_state must be a list of 2 states", lambda: STACK.backward(STACK.forward(X)[2], None, X)
    ),
    "a gradient of another width": (
        ValueError, r"d_state\[0\]\[1\] must have shape .* = \(1, 3, 5\); got",
        lambda: STACK.backward(STACK.forward(X)[2], None, [(None, H0[1][0]), None]),
    ),
    "an output of another layer": (
        ValueError, r"d_output must have shape .* = \(6, 3, 4\); got \(6, 3, 5\)",
        lambda: STACK.backward(STACK.forward(X)[2], np.ones((6, 3, 5), "f4")),
    ),
    "weights of all": (
        AttributeError, r"compiled code takes layer.layers\[i\].weights; got .*\[5, 4\]", lambda: STACK.weights
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "call"), CALLS.values(), ids=CALLS)
def test_a_stack_is_not_called_with(error, words, call):
    with pytest.raises(error, match=words):
        call()
