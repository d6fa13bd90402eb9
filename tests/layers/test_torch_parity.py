"""The layers against PyTorch's: the same weights give the same results and gradients, in the same shapes and order."""

import helpers
import numpy as np
import pytest
from helpers import CELLS, DTYPES, make_case, make_layer, tolerance

import numba_pack as nbp

torch = pytest.importorskip("torch", reason="PyTorch is the reference here; test_layers.py does without it")

LENGTHS = (4, 1, 7, 4, 6)  # PyTorch takes no sequence of length 0
T, B = max(LENGTHS), len(LENGTHS)


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torch_twin(layer):
    """PyTorch's layer with the same options and weights."""
    options = {} if not hasattr(layer, "nonlinearity") else {"nonlinearity": layer.nonlinearity}
    if layer.proj_size:
        options["proj_size"] = layer.proj_size
    twin = getattr(torch.nn, type(layer).__name__)(
        layer.input_size, layer.hidden_size, layer.num_layers, bias=layer.bias, batch_first=layer.batch_first,
        bidirectional=layer.bidirectional, dtype=getattr(torch, layer.dtype.name), **options,
    )  # fmt: skip
    twin.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    return twin


def leaf(array):
    return torch.tensor(array, requires_grad=True)


def map_state(f, state):
    return tuple(map(f, state)) if isinstance(state, tuple) else f(state)


class Form:
    """An input, and the gradient of its output, as both libraries take them."""

    def __init__(self, form, layer, case):
        self.packed = form == "packed"
        if self.packed:
            self.ours, self.d_ours = nbp.pack_sequence(case.sequences), nbp.pack_sequence(case.d_outputs)
            self.theirs = torch.nn.utils.rnn.pack_sequence(list(map(leaf, case.sequences)), enforce_sorted=False)
            self.d_theirs = torch.nn.utils.rnn.pack_sequence(
                [torch.tensor(d) for d in case.d_outputs], enforce_sorted=False
            ).data
            self.leaf = self.theirs.data
            self.leaf.retain_grad()
        else:
            axis = 0 if layer.batch_first else 1
            if form == "single":
                self.ours, self.d_ours = case.sequences[0], case.d_outputs[0]
            else:
                self.ours, self.d_ours = np.stack(case.sequences, axis), np.stack(case.d_outputs, axis)
            self.theirs = self.leaf = leaf(self.ours)
            self.d_theirs = torch.tensor(self.d_ours)

    def data(self, value):
        return value.data if self.packed else value


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
@pytest.mark.parametrize("form", ["packed", "padded", "single"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("num_layers", [1, 2], ids=["1-layer", "2-layers"])
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_results_and_gradients_are_those_of_pytorch(
    cell, dtype, bias, num_layers, bidirectional, batch_first, form, with_hx
):
    layer = make_layer(
        cell, 3, 5, num_layers=num_layers, bias=bias, bidirectional=bidirectional, batch_first=batch_first, dtype=dtype
    )
    lengths = {"packed": LENGTHS, "padded": (T,) * B, "single": (T,)}[form]
    case = make_case(layer, lengths, with_hx=with_hx)
    if form == "single":
        case = case._replace(
            hx=map_state(lambda part: part[:, 0], case.hx) if with_hx else None,
            d_state=map_state(lambda part: part[:, 0], case.d_state),
        )
    batch = Form(form, layer, case)

    twin = torch_twin(layer)
    hx = None if case.hx is None else map_state(leaf, case.hx)
    output, state = twin(batch.theirs, hx)
    roots = [batch.data(output), *helpers.as_tuple(state)]
    torch.autograd.backward(roots, [batch.d_theirs, *(torch.tensor(d) for d in helpers.as_tuple(case.d_state))])
    expected = {"output": batch.data(output).detach(), "d_input": batch.leaf.grad}
    expected |= {f"state[{i}]": part.detach() for i, part in enumerate(helpers.as_tuple(state))}
    if with_hx:
        expected |= {f"d_hx[{i}]": part.grad for i, part in enumerate(helpers.as_tuple(hx))}
    expected |= {f"d_{name}": value.grad for name, value in twin.named_parameters()}

    plain_output, plain_state = layer(batch.ours, case.hx)
    output, state, tape = layer.forward(batch.ours, case.hx)
    gradients = layer.backward(tape, batch.d_ours, case.d_state)
    got = {"output": batch.data(output), "d_input": batch.data(gradients.input)}
    got |= {f"state[{i}]": part for i, part in enumerate(helpers.as_tuple(state))}
    if with_hx:
        got |= {f"d_hx[{i}]": part for i, part in enumerate(helpers.as_tuple(gradients.hx))}
    got |= {f"d_{name}": value for name, value in layer.views(gradients.parameters).items()}

    assert type(state) is type(plain_state) is (tuple if helpers.has_c(cell) else np.ndarray)
    assert list(got) == list(expected)  # the names of the parameters, too, stand in the same order
    for name, value in expected.items():
        value = value.numpy()
        assert (got[name].shape, got[name].dtype) == (value.shape, value.dtype), name
        atol = 2 * tolerance(layer, lengths, helpers.largest([value]))  # either library rounds
        np.testing.assert_allclose(got[name], value, rtol=0, atol=atol, err_msg=name)
    atol = 2 * tolerance(layer, lengths, helpers.largest([expected["output"].numpy()]))
    np.testing.assert_allclose(batch.data(plain_output), expected["output"], rtol=0, atol=atol)
    for i, part in enumerate(helpers.as_tuple(plain_state)):
        np.testing.assert_allclose(part, expected[f"state[{i}]"], rtol=0, atol=atol)


@pytest.mark.parametrize("cell", CELLS)
def test_a_state_dict_of_pytorch_moves_over_as_it_is(cell):
    source = make_layer(cell, 3, 4, rng=0, num_layers=2, bidirectional=True)
    target = make_layer(cell, 3, 4, rng=1, num_layers=2, bidirectional=True)
    twin = torch_twin(source)
    assert list(twin.state_dict()) == list(target.state_dict())
    target.load_state_dict(twin.state_dict())
    np.testing.assert_array_equal(target.parameters, source.parameters)
    target = make_layer(cell, 3, 4, rng=2, num_layers=2, bidirectional=True, dtype=np.float64)
    target.load_state_dict(dict(twin.named_parameters()))  # tensors that need a gradient
    np.testing.assert_array_equal(target.parameters, source.parameters)


@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["RNNCell-tanh", "RNNCell-relu", "LSTMCell", "GRUCell"])
def test_cells_step_as_those_of_pytorch(name, dtype, bias):
    kind, _, nonlinearity = name.partition("-")
    options = {"nonlinearity": nonlinearity} if nonlinearity else {}
    cell = getattr(nbp, kind)(3, 5, bias, rng=0, dtype=dtype, **options)
    twin = getattr(torch.nn, kind)(3, 5, bias, dtype=getattr(torch, np.dtype(dtype).name), **options)
    twin.load_state_dict({key: torch.tensor(value) for key, value in cell.state_dict().items()})
    layer = nbp.LSTM(3, 5, dtype=dtype)  # of the same sizes, for the tolerance
    rng = np.random.default_rng(1)
    for single in (False, True):
        shapes = ([3], [5], [5], [5], [5]) if single else ([4, 3], [4, 5], [4, 5], [4, 5], [4, 5])
        x, *states = (helpers.normal(rng, shape, dtype) for shape in shapes)
        hx, d_state = states[:2], states[2:]
        hx, d_state = (tuple(part) if kind == "LSTMCell" else part[0] for part in (hx, d_state))
        input, before = leaf(x), map_state(leaf, hx)
        after = helpers.as_tuple(twin(input, before))
        twin.zero_grad()
        torch.autograd.backward(after, [torch.tensor(d) for d in helpers.as_tuple(d_state)])
        state, tape = cell.forward(x, hx)
        gradients = cell.backward(tape, d_state)
        got = [*helpers.as_tuple(state), gradients.input, *helpers.as_tuple(gradients.hx)]
        got += cell.views(gradients.parameters).values()
        expected = [*after, input.grad, *(part.grad for part in helpers.as_tuple(before))]
        expected = [value.detach().numpy() for value in expected + [value.grad for value in twin.parameters()]]
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            atol = 2 * tolerance(layer, [1] * 4, helpers.largest([other]))
            np.testing.assert_allclose(one, other, rtol=0, atol=atol)
