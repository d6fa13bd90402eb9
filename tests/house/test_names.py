"""What an error says of what came, where its class has the name of another: whose it is, and what to do."""

import importlib.util
import os
import subprocess
import sys
from typing import NamedTuple

import numba
import numpy as np
import pytest

import numba_pack as nbp
from numba_pack._arguments import kind_of, name_of


class PackedSequence(NamedTuple):
    """Another library's: the names of the class and of its fields are ours."""

    data: np.ndarray
    batch_sizes: np.ndarray
    sorted_indices: np.ndarray
    unsorted_indices: np.ndarray


ROWS = np.ones((3, 2), np.float32)
PACKED = nbp.pack_sequence([ROWS, ROWS[:1]])
GRU = nbp.GRU(2, 3, rng=0)

#: every way in for a PackedSequence
DOORS = {
    "sequence": nbp.pad_packed_sequence,
    "packed": nbp.unpack_sequence,
    "packed, ragged": nbp.unpack_ragged,
    "packed, select": lambda packed: nbp.select(packed, [0]),
    "batches": lambda packed: nbp.concatenate([packed]),
    "mine": lambda packed: nbp.check_packed(packed, "mine"),
    "input": GRU,
    "input, forward": GRU.forward,
    "input, cell": nbp.GRUCell(2, 3),
    "d_output": lambda packed: GRU.backward(GRU.forward(PACKED)[2], packed),
    "sequences": nbp.pack_sequence,
    "values": nbp.pack_ragged,
    "packed, compiled": lambda packed: nbp.gru(packed, GRU.weights),
}


@pytest.mark.parametrize("door", DOORS)
def test_another_class_of_the_same_name_is_told_by_its_module(door):
    with pytest.raises(TypeError, match=rf"^{door.partition(',')[0]}.* must .*; got .*test_names.PackedSequence"):
        DOORS[door](PackedSequence(*PACKED))


@pytest.mark.parametrize("door", DOORS)
def test_a_packed_sequence_of_pytorch_is_refused_with_the_way_to_ours(door):
    torch = pytest.importorskip("torch", reason="its PackedSequence is what is tested here")
    theirs = torch.nn.utils.rnn.pack_sequence([torch.ones(1, 2), torch.ones(3, 2)], enforce_sorted=False)
    way = r"got torch.nn.utils.rnn.PackedSequence, of which numba_pack\.interop\.torch\.packed_from_torch"
    with pytest.raises(TypeError, match=rf"^{door.partition(',')[0]}.* must .*{way}"):
        DOORS[door](theirs)
    ours = nbp.pack_sequence(torch.nn.utils.rnn.unpack_sequence(theirs))
    assert ours.lengths.tolist() == [1, 3]


def test_compiled_code_tells_another_class_by_its_module():
    @numba.njit
    def unpack(packed):
        return nbp.unpack_sequence(packed)

    with pytest.raises(
        numba.core.errors.TypingError, match=r"packed must be a PackedSequence; got .*test_names.Packed"
    ):
        unpack(PackedSequence(*PACKED))


def test_classes_of_python_itself_are_told_by_their_names_alone():
    assert [kind_of(value) for value in (None, 1.5, "a", [])] == ["NoneType", "float", "str", "list"]
    assert kind_of(ROWS) == "numpy.ndarray"


def test_one_class_imported_twice_is_said_to_be_so():
    spec = importlib.util.spec_from_file_location(__name__, __file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert name_of(PackedSequence, PackedSequence) == f"{__name__}.PackedSequence"
    assert "imported anew" in name_of(again.PackedSequence, PackedSequence)


@pytest.mark.slow
def test_what_was_made_before_a_second_import_is_told_from_what_comes_after_it():
    script = """
import sys
import numpy as np
import numba_pack as before
packed, tape = before.pack_sequence([np.ones((2, 2), "f4")]), before.GRU(2, 3).forward(np.ones((2, 2), "f4"))[2]
for name in [name for name in sys.modules if name.partition(".")[0] == "numba_pack"]:
    del sys.modules[name]
import numba_pack as nbp
gru = nbp.GRU(2, 3)
calls = (
    lambda: gru(packed),
    lambda: nbp.unpack_sequence(packed),
    lambda: nbp.gru(packed, gru.weights),
    lambda: gru.backward(tape),
    lambda: nbp.fold_embedding(before.GRU(2, 3), np.ones((4, 2))),
    lambda: nbp.gru(nbp.pack_sequence([np.ones((2, 2), "f4")]), before.GRU(2, 3).weights),
)
for call in calls:
    try:
        call()
    except TypeError as error:
        assert "imported anew" in str(error), error
    else:
        raise AssertionError("taken")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
