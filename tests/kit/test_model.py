"""Several parts as one vector, one gradient and one file."""

import copy
import math
import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

import numba_pack as nbp


def make(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return nbp.Model(
        embedding=nbp.Embedding(7, 3, dtype=dtype, rng=rng),
        gru=nbp.GRU(3, 2, bidirectional=True, dtype=dtype, rng=rng),
        linear=nbp.Linear(4, 5, dtype=dtype, rng=rng),
    )


def loss_and_gradient(model, words, labels):
    x, looked_up = model.embedding.forward(words)
    h, _, scanned = model.gru.forward(x)
    logits, multiplied = model.linear.forward(h)
    loss, d_logits = nbp.losses.softmax_cross_entropy(logits, labels)
    linear = model.linear.backward(multiplied, d_logits)
    gru = model.gru.backward(scanned, linear.input)
    embedding = model.embedding.backward(looked_up, gru.input)
    return loss, model.gradient(embedding=embedding, gru=gru, linear=linear)


WORDS = nbp.pack_sequence([np.array([1, 6, 2, 0]), np.array([3]), np.array([4, 5])])
LABELS = np.array([0, 1, 2, 3, 4, 0, 1])


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
            loss, gradient = loss_and_gradient(model, words, labels.data)
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


def test_a_model_shows_its_parts():
    assert repr(make()) == (
        "Model(\n    embedding=Embedding(7, 3),\n    gru=GRU(3, 2, bidirectional=True),\n    linear=Linear(4, 5),\n)"
    )
    assert {"gru", "parameters"} <= set(dir(make()))
    with pytest.raises(AttributeError, match=r"no part 'lstm'; its parts are embedding, gru, linear"):
        make().lstm  # noqa: B018
