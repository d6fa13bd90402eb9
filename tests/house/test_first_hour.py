"""What a newcomer tries: habits from other libraries are answered, names are found, errors are short."""

import copy
import io
import logging
import pickle
import re
import sys
import traceback
from importlib.util import find_spec
from inspect import signature
from operator import attrgetter

import numpy as np
import pytest
from numba import njit

import numba_pack as nbp
from numba_pack import _cache, _habits, _jit
from numba_pack.__main__ import main

OWNERS = {
    "layer": nbp.LSTM(3, 5, rng=0),
    "stack": nbp.LSTM(3, [5, 4], rng=0),
    "cell": nbp.GRUCell(3, 5, rng=0),
    "linear": nbp.Linear(3, 5, rng=0),
    "model": nbp.Model(lstm=nbp.LSTM(3, 5, rng=0)),
}

HABITS = {
    "eval": r"there is no mode to set: layer\(x\) is inference, layer.forward\(x\) training",
    "train": r"there is no mode to set",
    "cuda": "NUMBA_PACK_BACKEND",
    "to": "NUMBA_PACK_BACKEND",
    "double": "dtype=numpy.float64",
    "named_parameters": r"state_dict\(\) has the arrays by name",
    "weight_ih_l0": r"state_dict\(\) has the arrays by name, load_state_dict\(\) sets them",
    "bias_hh_l1_reverse": r"state_dict\(\) has the arrays",
    "zero_grad": r"backward\(tape, d_output\) returns the gradients",
}


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_is_answered(owner, habit):
    with pytest.raises(AttributeError, match=rf"has no attribute .*'{habit}': .*{HABITS[habit]}"):
        getattr(OWNERS[owner], habit)


@pytest.mark.parametrize("owner", OWNERS)
def test_other_names_are_not_there(owner):
    assert not hasattr(OWNERS[owner], "anything")
    for other in (copy.copy(OWNERS[owner]), copy.deepcopy(OWNERS[owner]), pickle.loads(pickle.dumps(OWNERS[owner]))):
        assert np.array_equal(other.parameters, OWNERS[owner].parameters)
        assert not hasattr(other, "eval")


@pytest.mark.parametrize("optimizer", [nbp.optim.SGD, nbp.optim.RMSprop, nbp.optim.Adam, nbp.optim.AdamW])
def test_parameters_given_to_an_optimizer_are_not_printed(optimizer):
    with pytest.raises(TypeError) as caught:
        optimizer(OWNERS["layer"].parameters)
    assert str(caught.value) == (
        "lr must be a number, and step(parameters, gradient) takes the parameters; got an array of shape (200,)"
    )
    for wrong in (
        lambda: optimizer(OWNERS["layer"].parameters, lr=0.1),
        lambda: optimizer(params=OWNERS["layer"].parameters, lr=0.1),
        lambda: optimizer(OWNERS["model"], 0.1),
        lambda: optimizer([OWNERS["layer"].parameters]),
    ):
        with pytest.raises(TypeError, match=r"lr must be a number, and step\(parameters, gradient\) takes the param"):
            wrong()
    assert "settings" not in signature(optimizer).parameters


@pytest.mark.parametrize("owner", OWNERS)
def test_an_optimizer_steps_vectors(owner):
    gradient = np.zeros_like(OWNERS[owner].parameters)
    with pytest.raises(TypeError, match=r"parameters must be a vector, such as layer\.parameters; got numba_pack\."):
        nbp.optim.Adam().step(OWNERS[owner], gradient)


ADVICE = {
    "device": (lambda: nbp.GRU(3, 5, device="cpu"), "device is not taken: .*NUMBA_PACK_BACKEND"),
    "device of a part": (lambda: nbp.Linear(3, 5, device="cpu"), "device is not taken: .*NUMBA_PACK_BACKEND"),
    "padding_idx": (lambda: nbp.Embedding(3, 5, padding_idx=0), "packed rows have no padding"),
    "units": (lambda: nbp.LSTM(3, units=5), "units is not taken: it is hidden_size="),
    "return_sequences": (lambda: nbp.GRU(3, 5, return_sequences=True), "returns both the output of all steps"),
    "activation": (lambda: nbp.RNN(3, 5, activation="elu"), "numba_pack.cells makes cells of any formula"),
    "seed": (lambda: nbp.LSTM(3, 5, seed=0), "seed is not taken: it is rng=; got seed=0"),
    "learning_rate": (lambda: nbp.optim.Adam(learning_rate=0.1), "learning_rate is not taken: it is lr="),
    "strict": (lambda: OWNERS["model"].load_state_dict({}, strict=False), "prefix= leaves alone"),
    "a list": (lambda: OWNERS["layer"]([np.ones((2, 3))]), "got list, of which numba_pack.pack_sequence makes"),
    "h and c": (
        lambda: OWNERS["layer"](np.ones((4, 3), np.float32), *np.zeros((2, 1, 5), np.float32)),
        r"states are one argument, hx=\(h_0, c_0\)",
    ),
}


@pytest.mark.parametrize("what", ADVICE)
def test_an_argument_of_other_libraries_is_told_what_to_do(what):
    call, told = ADVICE[what]
    with pytest.raises(TypeError, match=told):
        call()


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_an_array_that_is_assigned_is_told_what_sets_it(name):
    with pytest.raises(AttributeError, match=rf"{name} of a Linear cannot be assigned: .*load_state_dict\(\) sets"):
        setattr(OWNERS["linear"], name, None)


def test_the_other_float_is_told_how_to_become_this_one():
    with pytest.raises(TypeError, match=r"input must have dtype float32; got float64, which astype\(numpy.float32\)"):
        OWNERS["layer"](np.ones((4, 3)))


@njit
def pack_in_compiled_code(lengths):
    return nbp.pack_padded_sequence(np.ones((3, 2)), lengths)


@pytest.mark.parametrize("pack", [pack_in_compiled_code, lambda n: nbp.pack_padded_sequence(np.ones((3, 2)), n)])
def test_a_traceback_shows_a_valueerror(pack):
    with pytest.raises(ValueError) as caught:
        pack(np.array([4, 9]))
    assert caught.type is ValueError
    *_, last = traceback.format_exception_only(caught.value)
    told = "lengths must not exceed the time steps of the input: expected at most 3; got 4 at index 0"
    assert last == f"ValueError: {told}\n"
    assert str(pickle.loads(pickle.dumps(caught.value))) == told


def test_an_error_while_another_is_handled_is_a_valueerror_too():
    try:
        raise KeyError("before")
    except KeyError:
        with pytest.raises(ValueError, match="expected at most 3; got 4 at index 0") as caught:
            pack_in_compiled_code(np.array([4, 9]))
    assert caught.type is ValueError


MODULES = [nbp, nbp.cells, nbp.data, nbp.interop, nbp.losses, nbp.optim, nbp.serving]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_dir_shows_what_is_public(module):
    assert {name for name in dir(module) if not name.startswith("__")} == set(module.__all__)


@pytest.mark.parametrize("door", ["keras", "onnx", "ray", "torch"])
def test_dir_shows_what_is_public_of_a_door(door):
    pytest.importorskip(door)
    module = getattr(nbp.interop, door)
    assert {name for name in dir(module) if not name.startswith("__")} == set(module.__all__)


def test_compile_fills_the_cache_and_tells_how_long_it_took(capsys):
    main(["compile", "GRU", "--inference"])
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["packing", "GRU", "kept"]
    assert all(line.endswith(" s") for line in told[:-1])


def test_compile_refuses_a_kind_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        main(["compile", "LSTX"])
    assert "kind must be of" in capsys.readouterr().err


def test_info_is_what_no_command_tells(capsys):
    main([])
    told = capsys.readouterr().out
    main(["info"])
    assert capsys.readouterr().out == told


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "info" in told and "compile" in told


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("name", ["paramters", "parameter", "weight_ih_l0", "training"])
def test_what_would_do_nothing_is_not_assigned(owner, name):
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}' to be assigned: "):
        setattr(OWNERS[owner], name, OWNERS[owner].parameters)


def test_a_class_of_ones_own_may_have_attributes_of_any_name():
    class Encoder(nbp.GRU):
        training = False

    encoder = Encoder(3, 5, rng=0)
    encoder.training, encoder.device = True, "here"
    assert encoder.training and encoder.device == "here"
    OWNERS["layer"].note = "of the user's own"
    del OWNERS["layer"].note


@pytest.mark.parametrize("optimizer", [nbp.optim.SGD(0.1), nbp.optim.RMSprop(), nbp.optim.Adam(), nbp.optim.AdamW()])
def test_an_optimizer_has_its_settings_and_no_others(optimizer):
    optimizer.lr = 0.5
    with pytest.raises(AttributeError, match=r"has no attribute 'learning_rate'; it has lr, "):
        optimizer.learning_rate = 0.1
    with pytest.raises(AttributeError, match=r"'zero_grad': backward\(tape, d_output\) returns the gradients"):
        optimizer.zero_grad()
    assert copy.deepcopy(optimizer).lr == pickle.loads(pickle.dumps(optimizer)).lr == 0.5


def test_a_part_of_a_model_is_not_exchanged():
    model = nbp.Model(gru=nbp.GRU(3, 5, rng=0))
    with pytest.raises(AttributeError, match="gru is a part since the Model was made"):
        model.gru = nbp.GRU(3, 5, rng=1)
    with pytest.raises(TypeError, match=r"parts must be given by name, .*; got 1 without a name"):
        nbp.Model(nbp.GRU(3, 5))


PACKED = nbp.pack_sequence([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)])


@pytest.mark.parametrize(
    "compute",
    [lambda: PACKED + 1, lambda: 2 * PACKED, lambda: PACKED - PACKED, lambda: PACKED / 2, lambda: np.exp(PACKED),
     lambda: np.ones(3) * PACKED, lambda: PACKED + PACKED],
)  # fmt: skip
def test_arithmetic_of_a_batch_names_map_and_each(compute):
    with pytest.raises(TypeError, match="a PackedSequence must be computed with by map, of all rows, or each"):
        compute()


def test_gradients_in_place_of_arrays_are_told_what_they_hold():
    layer = OWNERS["layer"]
    output, state, tape = layer.forward(PACKED)
    gradients = layer.backward(tape, output, state)
    with pytest.raises(TypeError, match=r"gradient must be a NumPy array; got .*Gradients, whose \.parameters is the"):
        nbp.optim.Adam().step(layer.parameters, gradients)


def test_texts_are_told_how_to_become_numbers():
    with pytest.raises(TypeError, match=r"a text, of which numpy\.frombuffer\(text\.encode\(\), numpy\.uint8\)"):
        nbp.pack_sequence(["abc", "de"])


def test_a_report_takes_the_batch_itself():
    assert nbp.packing_report(PACKED) == nbp.packing_report([2, 4])


@pytest.mark.parametrize(
    "name, where", [("Adam", "optim"), ("cross_entropy", "losses"), ("Batches", "data"), ("Sequential", "Model")]
)
@pytest.mark.parametrize("module", [nbp, nbp.data, nbp.losses, nbp.optim])
def test_what_is_elsewhere_is_told_where(module, name, where):
    if not hasattr(module, name):
        with pytest.raises(AttributeError, match=rf"has no attribute '{name}'; look in numba_pack\.{where}"):
            getattr(module, name)


@pytest.mark.parametrize("name", ["accelerate", "from_torch", "from_keras", "session"])
def test_a_door_is_told_in_which_room_it_is(name):
    with pytest.raises(AttributeError) as caught:
        getattr(nbp, name)
    rooms = re.findall(r"numba_pack\.interop\.(\w+)", str(caught.value))
    assert rooms and all(name in dir(getattr(nbp.interop, room)) for room in rooms if find_spec(room))


def test_every_place_that_is_told_is_there():
    for where in _habits._FOUND:
        assert attrgetter(where)(nbp) is not None


def test_what_is_nowhere_is_not_there():
    assert not hasattr(nbp, "anything")


def test_a_file_of_pytorch_is_told_how_to_be_read(tmp_path):
    pytest.importorskip("safetensors", reason="what nbp.load reads files with")
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(ValueError, match=r"x\.pt: not a safetensors file, .*from_state_dict\(torch\.load\(path\)\)"):
        nbp.load(tmp_path / "x.pt")


@pytest.fixture
def compiles_slowly(monkeypatch, tmp_path):
    """What makes a function compile, as if it took longer than anybody waits for without a word."""
    monkeypatch.setattr(_jit, "_PATIENCE", 0.0)
    monkeypatch.setattr(_cache, "_waits", False)
    monkeypatch.setattr(_cache, "PLACES", [str(tmp_path)])
    return lambda: _jit.jit(lambda x: x + 1)(1)


def test_the_log_says_once_that_a_call_compiles(compiles_slowly, caplog):
    with caplog.at_level(logging.INFO, "numba_pack"):
        compiles_slowly()
        compiles_slowly()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "numba_pack compiles what runs for the first time" in caplog.text


@pytest.mark.parametrize("terminal", [True, False], ids=["a terminal", "a file"])
def test_without_a_log_a_terminal_says_that_a_call_compiles(terminal, compiles_slowly, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.delattr(sys, "ps1", raising=False)
    log = logging.getLogger("numba_pack")
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "handlers", [])
    compiles_slowly()
    assert shown.getvalue().startswith("numba_pack compiles") == terminal
    assert shown.getvalue().count("\n") == terminal
