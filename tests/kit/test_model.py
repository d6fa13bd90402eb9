"""Several parts as one: run one after another, with one vector, one gradient and one file."""

import copy
import gc
import math
import pickle
import weakref

import numpy as np
import pytest
from scipy.optimize import minimize

import numba_pack as nbp
from numba_pack.kit.last_state import rows_of_state


def make(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return nbp.Model(
        embedding=nbp.Embedding(7, 3, dtype=dtype, rng=rng),
        gru=nbp.GRU(3, 2, bidirectional=True, dtype=dtype, rng=rng),
        linear=nbp.Linear(4, 5, dtype=dtype, rng=rng),
    )


def loss_and_gradient(model, words, labels):
    logits, tape = model.forward(words)
    loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels)
    return loss, model.backward(tape, d_logits).parameters


def loss_and_gradient_by_hand(model, words, labels):
    x, looked_up = model.embedding.forward(words)
    h, _, scanned = model.gru.forward(x)
    logits, multiplied = model.linear.forward(h)
    loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels)
    linear = model.linear.backward(multiplied, d_logits)
    gru = model.gru.backward(scanned, linear.input)
    embedding = model.embedding.backward(looked_up, gru.input)
    return loss, model.gradient(embedding=embedding, gru=gru, linear=linear)


WORDS = nbp.pack_sequence([np.array([1, 6, 2, 0]), np.array([3]), np.array([4, 5])])
LABELS = WORDS._replace(data=np.array([0, 1, 2, 3, 4, 0, 1]))
#: layers of every kind of state: h alone or with c, of several layers, of two directions, of different widths
LAYERS = {
    "GRU": lambda: nbp.GRU(7, 2, bidirectional=True, rng=0),
    "LSTM": lambda: nbp.LSTM(7, 2, num_layers=2, bidirectional=True, rng=0),
    "widths": lambda: nbp.GRU(7, [3, 4], rng=0),
    "LSTM, widths": lambda: nbp.LSTM(7, [3, 2], bidirectional=True, rng=0),
}


def test_the_vector_and_the_names_are_those_of_the_parts_in_turn():
    model = make()
    parts = [model.embedding, model.gru, model.linear]
    np.testing.assert_array_equal(model.parameters, np.concatenate([part.parameters for part in parts]))
    assert list(model.state_dict()) == [
        f"{name}.{key}" for name, part in model.parts.items() for key in part.state_dict()
    ]
    for name, view in model.views(model.parameters).items():
        np.testing.assert_array_equal(view, model.state_dict()[name])
    vector = np.zeros_like(model.parameters)
    model.views(vector)["linear.bias"][:] = 1
    model.parameters = vector
    np.testing.assert_array_equal(model.linear.bias, np.ones(5))
    assert not model.parameters.flags.writeable


@pytest.mark.parametrize("model", [make(), nbp.Model(encoder=make(), head=nbp.Linear(5, 2))], ids=["flat", "nested"])
def test_an_update_copies_the_vector_once(model):
    given = np.arange(model.parameters.size, dtype=np.float32)
    model.parameters = given
    vector = model.parameters
    assert given.flags.writeable and not np.shares_memory(vector, given)
    assert model.parameters is vector
    for part in model.parts.values():
        assert np.shares_memory(part.parameters, vector) and not part.parameters.flags.writeable
    given[:] = 0
    np.testing.assert_array_equal(vector, np.arange(vector.size))
    model.parameters = vector  # which is read-only
    assert not np.shares_memory(model.parameters, vector)


def test_a_part_that_has_other_parameters_is_seen():
    model = make()
    before = model.parameters
    assert model.parameters is before
    model.gru.parameters = model.gru.parameters + 1
    after = model.parameters
    assert after is not before and not after.flags.writeable
    np.testing.assert_array_equal(
        after, np.concatenate([model.embedding.parameters, model.gru.parameters, model.linear.parameters])
    )
    outer = nbp.Model(inner=model, head=nbp.Linear(5, 2))
    assert outer.parameters is outer.parameters
    model.linear.load_state_dict(make(1).linear.state_dict())
    np.testing.assert_array_equal(outer.parameters[: model.parameters.size], model.parameters)
    assert not np.array_equal(model.parameters, after)


def test_a_call_of_a_model_is_a_call_of_one_part_after_another():
    model = make()
    expected = model.linear(model.gru(model.embedding(WORDS))[0])
    for output in (model(WORDS), model.forward(WORDS)[0]):
        np.testing.assert_array_equal(output.data, expected.data)
        np.testing.assert_array_equal(output.lengths, WORDS.lengths)


def test_the_gradient_of_a_model_is_that_of_its_parts():
    model = make()
    loss, gradient = loss_and_gradient(model, WORDS, LABELS)
    expected_loss, expected = loss_and_gradient_by_hand(model, WORDS, LABELS)
    assert loss == expected_loss
    np.testing.assert_array_equal(gradient, expected)


def test_the_gradient_of_the_input_is_there_where_it_is_asked_for():
    gru, linear = nbp.GRU(3, 2, bidirectional=True, rng=0), nbp.Linear(4, 5, rng=0)
    model, x = nbp.Model(gru=gru, linear=linear), WORDS._replace(data=np.ones((7, 3), np.float32))
    output, tape = model.forward(x)
    assert model.backward(tape, output).input is None
    output, tape = model.forward(x)
    found = model.backward(tape, output, input_grad=True)
    h, _, scanned = gru.forward(x)
    expected = gru.backward(scanned, linear.backward(linear.forward(h)[1], output).input).input
    np.testing.assert_array_equal(found.input.data, expected.data)
    with pytest.raises(ValueError, match="tape must not have been used"):
        model.backward(tape, output)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_last_state_goes_on_in_place_of_the_output(kind):
    layer, linear = LAYERS[kind](), nbp.Linear(4, 5, rng=1)
    model = nbp.Model(layer=layer, linear=linear, last_state=True)
    output, tape = model.forward(WORDS)
    assert output.shape == (3, 5)
    np.testing.assert_array_equal(model(WORDS), output)
    for i, words in enumerate(nbp.unpack_sequence(WORDS)):  # in the caller's order, and a sequence alone
        forward, *backward = np.split(layer(words)[0], layer.num_directions, axis=1)
        last = np.concatenate([forward[-1], *(each[0] for each in backward)])
        np.testing.assert_array_equal(output[i], linear(last))
        np.testing.assert_array_equal(model(words), output[i])

    gradient = model.backward(tape, output).parameters
    h, _, scanned = layer.forward(WORDS)
    ends = h._replace(data=np.zeros_like(h.data))  # that of the output, whose rows at the ends the last states are
    of_linear = linear.backward(linear.forward(rows_of_state(layer, layer(WORDS)[1]))[1], output)
    H = layer.output_size
    for i, rows in enumerate(nbp.unpack_sequence(ends._replace(data=np.arange(len(h.data))))):
        ends.data[rows[-1], :H] = of_linear.input[i, :H]
        ends.data[rows[0], H:] = of_linear.input[i, H:]
    expected = np.concatenate([layer.backward(scanned, ends).parameters, of_linear.parameters])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=16 * np.finfo(np.float32).eps * np.abs(expected).max())


def test_a_model_that_ends_with_a_layer_gives_its_last_state():
    model = nbp.Model(gru=nbp.GRU(7, 2, bidirectional=True, rng=0), last_state=True)
    output, tape = model.forward(WORDS)
    np.testing.assert_array_equal(output, np.concatenate(model.gru(WORDS)[1], axis=1))
    assert model.backward(tape, output).parameters.any()


def test_an_error_begins_with_the_part_that_it_is_of():
    model = nbp.Model(gru=nbp.GRU(7, 2, rng=0), linear=nbp.Linear(3, 5, rng=0))
    for call in (model, model.forward):
        with pytest.raises(ValueError, match=r"^linear: input\.data must have shape .*; got \(7, 2\)$"):
            call(WORDS)


def test_the_gradient_is_that_of_finite_differences():
    model = make(dtype=np.float64)
    start, (_, gradient) = model.parameters, loss_and_gradient(model, WORDS, LABELS)
    step = np.finfo(np.float64).eps ** (1 / 3)
    for i in range(start.size):
        losses = []
        for sign in (1, -1):
            vector = start.copy()
            vector[i] += sign * step
            model.parameters = vector
            losses.append(loss_and_gradient(model, WORDS, LABELS)[0])
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(gradient[i], rel=0, abs=1e-8)


def test_scipy_minimises_over_the_vector():
    model = make(dtype=np.float64)

    def function(vector):
        model.parameters = vector
        return loss_and_gradient(model, WORDS, LABELS)

    assert minimize(function, model.parameters, jac=True, method="L-BFGS-B").fun < 1e-3 < math.log(5) / 100


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_vector_that_is_refused_changes_no_part(bad):
    model = make()
    before, vector = model.parameters, model.parameters.copy()
    vector[:] = 7
    vector[-2] = bad
    with pytest.raises(ValueError, match=rf"parameters must be finite; got {bad} at index {len(vector) - 2}"):
        model.parameters = vector
    np.testing.assert_array_equal(model.parameters, before)


def test_a_state_dict_that_is_refused_changes_no_part():
    model, other = make(0), make(1)
    before, state = model.parameters, other.state_dict()
    for wrong in (
        {**state, "linear.bias": np.ones(4)},
        {name: value for name, value in state.items() if name != "linear.bias"},
        {**state, "head.bias": np.ones(5)},
    ):
        with pytest.raises(ValueError, match=r"linear\.bias|head\.bias"):
            model.load_state_dict(wrong)
        np.testing.assert_array_equal(model.parameters, before)
    model.load_state_dict({f"net.{name}": value for name, value in state.items()} | {"other": 1}, "net")
    np.testing.assert_array_equal(model.parameters, other.parameters)


def test_a_part_without_a_gradient_stays_as_it_is():
    model = make()
    gradient = model.gradient(embedding=None, gru=None, linear=np.ones_like(model.linear.parameters))
    before = {name: part.parameters for name, part in model.parts.items()}
    model.parameters = nbp.optim.Adam(lr=0.1).step(model.parameters, gradient)
    for name in ("embedding", "gru"):
        np.testing.assert_array_equal(model.parts[name].parameters, before[name])
    assert not np.array_equal(model.linear.parameters, before["linear"])


def test_models_are_parts_of_models():
    inner = make()
    outer = nbp.Model(encoder=inner, head=nbp.Linear(5, 2, rng=0))
    np.testing.assert_array_equal(outer(WORDS).data, outer.head(inner(WORDS)).data)
    output, tape = outer.forward(WORDS)
    assert outer.backward(tape, output).parameters.shape == outer.parameters.shape
    assert "encoder.gru.weight_hh_l0_reverse" in outer.state_dict()
    np.testing.assert_array_equal(outer.parameters[: inner.parameters.size], inner.parameters)
    gradient = outer.gradient(encoder=np.ones_like(inner.parameters), head=None)
    assert gradient.sum() == inner.parameters.size
    with pytest.raises(ValueError, match="once each"):
        nbp.Model(a=inner, b=inner.linear)


def trained(model, adam, batches, steps):
    """The losses of some steps."""
    losses = []
    while len(losses) < steps:
        for words, labels in batches:
            loss, gradient = loss_and_gradient(model, words, labels)
            model.parameters = adam.step(model.parameters, gradient)
            losses.append(loss)
            if len(losses) == steps:
                break
    return losses


def test_training_that_was_saved_goes_on_as_if_it_had_not_stopped(tmp_path):
    rng = np.random.default_rng(0)
    columns = [[rng.integers(0, high, n) for n in (5, 3, 8, 2, 6, 1)] for high in (7, 5)]
    model, adam, batches = make(), nbp.optim.Adam(lr=0.1), nbp.data.Batches(*columns, rows=9, seed=3)
    trained(model, adam, batches, 5)  # amid an epoch
    model.save(tmp_path / "model.safetensors", adam=adam, batches=batches)
    expected = trained(model, adam, batches, 7)

    model, adam, batches = make(1), nbp.optim.Adam(), nbp.data.Batches(*columns, rows=9)
    model.load(tmp_path / "model.safetensors", adam=adam, batches=batches)
    assert adam.lr == 0.1
    assert trained(model, adam, batches, 7) == expected


def test_a_file_is_read_for_inference_without_the_rest(tmp_path):
    path, model, adam = tmp_path / "model.safetensors", make(), nbp.optim.Adam()
    model.parameters = adam.step(model.parameters, np.ones_like(model.parameters))
    model.save(path, adam=adam)
    other = make(1)
    other.load(path)
    np.testing.assert_array_equal(other.parameters, model.parameters)
    np.testing.assert_array_equal(nbp.load(path)["gru"].parameters, model.gru.parameters)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    path, model, adam = tmp_path / "model.safetensors", make(), nbp.optim.Adam()
    model.save(path, adam=adam)
    other, sgd = make(1), nbp.optim.SGD(lr=0.5)
    before = other.parameters
    with pytest.raises(ValueError, match=r"model.safetensors: adam: state_dict must have the names of SGD"):
        other.load(path, adam=sgd)
    np.testing.assert_array_equal(other.parameters, before)
    assert sgd.lr == 0.5
    (tmp_path / "broken").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        other.load(tmp_path / "broken")
    with pytest.raises(FileNotFoundError):
        other.load(tmp_path / "none")


def test_models_are_copied_and_pickled_with_their_parts():
    model = make()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.parameters, model.parameters)
        other.parameters = other.parameters + 1
        assert not np.array_equal(other.parameters, model.parameters)


def test_what_was_there_before_a_state_dict_is_held_no_longer():
    model = make()
    held = [weakref.ref(model.parameters), *(weakref.ref(part.parameters) for part in model.parts.values())]
    model.load_state_dict(make(1).state_dict())
    gc.collect()
    assert [one() for one in held] == [None] * len(held)


def test_a_pickle_has_the_parameters_once():
    model = nbp.Model(embedding=nbp.Embedding(500, 40))
    assert model.parameters.nbytes < len(pickle.dumps(model)) < 1.1 * model.parameters.nbytes


def test_a_model_shows_its_parts():
    assert repr(make()) == (
        "Model(\n    embedding=Embedding(7, 3),\n    gru=GRU(3, 2, bidirectional=True),\n    linear=Linear(4, 5),\n)"
    )
    last = nbp.Model(gru=nbp.GRU(3, 2), last_state=True)
    assert repr(last) == "Model(\n    gru=GRU(3, 2),\n    last_state=True,\n)"
    assert repr(make().forward(WORDS)[1]) == "Tape of Model(embedding, gru, linear)"
    assert {"gru", "parameters"} <= set(dir(make()))
    with pytest.raises(AttributeError, match=r"no part 'lstm'; its parts are embedding, gru, linear"):
        make().lstm  # noqa: B018
