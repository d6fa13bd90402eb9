"""Ragged data in other forms: lists, object arrays, and what Awkward, Arrow, pandas, PyTorch and DLPack have.

A library that is not installed skips the tests of its forms, by name; all but PyTorch come with the extra ``test``.
"""

import datetime
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError
from test_packing import assert_same, filled, sequences_of

import numba_pack as nbp
from numba_pack.packing.sequences import rows_of

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")

LIBRARIES = ["awkward", "pyarrow", "pandas", "polars", "torch"]


def library(name):
    return pytest.importorskip(name, reason=f"the forms of {name} are what is tested here")


def buffer_and_offsets(sequences):
    return np.concatenate(sequences), np.cumsum([0] + [len(sequence) for sequence in sequences])


# ---- the forms: each made of a list of arrays with at least one axis, but for those of which one is too many ---------


def awkward(sequences):
    ak = library("awkward")
    values, offsets = buffer_and_offsets(sequences)
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets), ak.contents.NumpyArray(values)))


def awkward_by_starts(sequences):
    """Sequences that lie in the buffer in the opposite order, with rows between them."""
    ak = library("awkward")
    between = filled((2, *sequences[0].shape[1:]), sequences[0].dtype, 7)
    values, offsets = buffer_and_offsets([part for sequence in sequences[::-1] for part in (sequence, between)])
    index = [ak.index.Index64(part[::2][::-1].copy()) for part in (offsets[:-1], offsets[1:])]
    return ak.Array(ak.contents.ListArray(*index, ak.contents.NumpyArray(values)))


def awkward_slice(sequences):
    return awkward([sequences[-1], *sequences, sequences[0]])[1:-1]


def awkward_options(sequences):
    """Of a type that allows missing values, of which there are none."""
    ak = library("awkward")
    allowed = awkward(sequences)
    return ak.Array(ak.contents.IndexedOptionArray(ak.index.Index64(np.arange(len(allowed))), allowed.layout))


def awkward_irregular(sequences):
    """Whose rows are lists that happen to have one length."""
    return library("awkward").from_regular(awkward(sequences), axis=None)


def arrow(sequences, large=False):
    pa = library("pyarrow")
    values, offsets = buffer_and_offsets(sequences)
    rows = pa.array(values.ravel())
    for size in values.shape[:0:-1]:
        rows = pa.FixedSizeListArray.from_arrays(rows, size)
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(offsets.astype("i8" if large else "i4"), rows)


def arrow_large(sequences):
    return arrow(sequences, large=True)


def arrow_slice(sequences):
    return arrow([sequences[-1], *sequences, sequences[0]])[1:-1]


def arrow_irregular(sequences):
    """Whose rows are lists that happen to have one length."""
    pa = library("pyarrow")
    values, offsets = buffer_and_offsets(sequences)
    rows = pa.array(values.ravel())
    if values.ndim > 1:
        rows = pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype="i4") * values.shape[1], rows)
    return pa.ListArray.from_arrays(offsets.astype("i4"), rows)


def arrow_view(sequences):
    pa = library("pyarrow")
    array = arrow(sequences)
    offsets = array.offsets.to_numpy()
    sizes = np.diff(offsets).astype("i4")
    return pa.ListViewArray.from_arrays(offsets[:-1], sizes, array.values)


def arrow_chunked(sequences):
    array = arrow(sequences)
    half = len(array) // 2
    return library("pyarrow").chunked_array([array[:half], array[half:], array[:0]])


def arrow_chunk(sequences):
    return library("pyarrow").chunked_array([arrow(sequences)])


class Exporter:
    """What has Arrow's C data interface and nothing else, as the arrays of many libraries."""

    def __init__(self, array):
        self.array = array

    def __arrow_c_array__(self, requested_schema=None):
        return self.array.__arrow_c_array__(requested_schema)


class Streamer:
    def __init__(self, array):
        self.array = array

    def __arrow_c_stream__(self, requested_schema=None):
        return self.array.__arrow_c_stream__(requested_schema)


def arrow_exported(sequences):
    return Exporter(arrow(sequences))


def arrow_streamed(sequences):
    return Streamer(arrow_chunk(sequences))


def objects(sequences):
    array = np.empty(len(sequences), object)
    for i, sequence in enumerate(sequences):
        array[i] = sequence
    return array


def pandas_column(sequences):
    pd = library("pandas")
    return pd.DataFrame({"utterance": pd.Series(objects(sequences), index=np.arange(len(sequences)) + 7)})["utterance"]


def pandas_arrow(sequences):
    pd, array = library("pandas"), arrow(sequences)
    return pd.Series(array, dtype=pd.ArrowDtype(array.type))


def polars_column(sequences):
    return library("polars").Series("utterance", arrow(sequences))


def torch_jagged(sequences):
    torch = library("torch")
    values, offsets = buffer_and_offsets(sequences)
    return torch.nested.nested_tensor_from_jagged(torch.from_numpy(values), torch.from_numpy(offsets))


def torch_narrowed(sequences):
    """A jagged tensor with rows between its sequences: those of a padded batch."""
    torch = library("torch")
    padded = torch.from_numpy(nbp.pad_sequence(sequences, True))
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return torch.nested.narrow(padded, 1, 0, lengths, layout=torch.jagged)


def torch_strided(sequences):
    torch = library("torch")
    return torch.nested.as_nested_tensor([torch.from_numpy(sequence) for sequence in sequences], layout=torch.strided)


def torch_list(sequences):
    torch = library("torch")
    return [torch.from_numpy(sequence) for sequence in sequences]


class Exchanged:
    """What has DLPack and nothing else."""

    def __init__(self, array, device=None):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()


class OnCuda:
    """What NumPy could copy from a device, in silence."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (2,), "typestr": "<f8", "data": (0, False), "version": 3}

    def __array__(self, dtype=None, copy=None):
        return np.ones(2, dtype)


def dlpack_list(sequences):
    return [Exchanged(sequence) for sequence in sequences]


class Form(NamedTuple):
    make: object
    #: the foreign memory that is read in place; None where there is none, as the rows are copied together first
    memory: object
    #: what `unpack_ragged` calls it
    name: str


FORMS = {
    "Awkward": Form(awkward, lambda x: [x.layout.content.data], "awkward"),
    "Awkward by starts": Form(awkward_by_starts, lambda x: [x.layout.content.data], "awkward"),
    "Awkward slice": Form(awkward_slice, lambda x: [x.layout.content.data], "awkward"),
    "Awkward with options": Form(awkward_options, None, "awkward"),
    "Awkward, irregular": Form(awkward_irregular, lambda x: [numbers(x.layout)], "awkward"),
    "Arrow list": Form(arrow, lambda x: [numbers(x)], "pyarrow"),
    "Arrow large list": Form(arrow_large, lambda x: [numbers(x)], "pyarrow"),
    "Arrow slice": Form(arrow_slice, lambda x: [numbers(x)], "pyarrow"),
    "Arrow, irregular": Form(arrow_irregular, lambda x: [numbers(x)], "pyarrow"),
    "Arrow list view": Form(arrow_view, None, "pyarrow"),
    "Arrow in chunks": Form(arrow_chunked, None, "pyarrow"),
    "Arrow in one chunk": Form(arrow_chunk, lambda x: [numbers(x.chunk(0))], "pyarrow"),
    "Arrow's interface": Form(arrow_exported, lambda x: [numbers(x.array)], "pyarrow"),
    "Arrow's stream": Form(arrow_streamed, lambda x: [numbers(x.array.chunk(0))], "pyarrow"),
    "object array": Form(objects, list, "objects"),
    "pandas": Form(pandas_column, list, "pandas"),
    "pandas of Arrow": Form(pandas_arrow, lambda x: [numbers(x.array.__arrow_array__().chunk(0))], "pandas"),
    "polars": Form(polars_column, lambda x: [numbers(x.to_arrow())], "polars"),
    "jagged tensor": Form(torch_jagged, lambda x: [x.values().numpy()], "torch"),
    "narrowed tensor": Form(torch_narrowed, lambda x: [x.values().numpy()], "torch"),
    "strided nested tensor": Form(torch_strided, lambda x: [t.numpy() for t in x.unbind()], "torch"),
    "list of tensors": Form(torch_list, lambda x: [t.numpy() for t in x], "torch"),
    "list by DLPack": Form(dlpack_list, lambda x: [e.array for e in x], "lists"),
    "tuple of arrays": Form(tuple, list, "lists"),
}


def numbers(array):
    """The numbers at the bottom of an Arrow array or an Awkward layout."""
    while hasattr(array, "content") or hasattr(array, "values"):
        array = array.content if hasattr(array, "content") else array.values
    return array.data if hasattr(array, "is_numpy") else array.to_numpy()


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


# ---- in --------------------------------------------------------------------------------------------------------------

LENGTHS = [3, 0, 5, 1, 3]


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)], ids=str)
def test_a_form_packs_as_the_list_of_its_sequences_does(form, trailing):
    if trailing == (2, 3) and form.make is arrow_irregular:
        trailing = (6,)
    sequences = sequences_of(LENGTHS, trailing)
    given, expected = form.make(sequences), nbp.pack_sequence(sequences)
    assert_same(nbp.pack_sequence(given), expected)
    assert_same(nbp.pack_ragged(given), expected)
    assert_same(nbp.pad_sequence(given), nbp.pad_sequence(sequences))
    assert_same(nbp.pack_sequence(given).lengths, np.array(LENGTHS))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=9), st.sampled_from([(), (1,), (4,)]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_all_forms_pack_alike_whatever_the_lengths(lengths, trailing, seed):
    sequences = sequences_of(lengths, trailing, "f8", seed)
    expected = nbp.pack_sequence(sequences)
    for make, _, name in FORMS.values():
        # a list of no rows does not tell their size; PyTorch refuses to narrow to nothing
        untold = not any(lengths) and make in (awkward_irregular, arrow_irregular, torch_narrowed)
        if not untold and (name in ("objects", "lists") or find_spec(name)):
            assert_same(nbp.pack_sequence(make(sequences)), expected)


DTYPES = ["?", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]


def test_the_dtype_is_kept(form):
    unknown = set()  # to the library
    if form.name == "pyarrow" or form.make is pandas_arrow or form.make is polars_column:
        unknown = {"c8", "c16"}
    elif form.make is torch_strided:
        unknown = {"u2", "u8"}
    for dtype in DTYPES:
        if dtype not in unknown:
            sequences = sequences_of(LENGTHS, (2,), dtype)
            assert_same(nbp.pack_sequence(form.make(sequences)), nbp.pack_sequence(sequences))


def test_rows_are_read_where_they_lie_wherever_the_layout_allows(form):
    given = form.make(sequences_of(LENGTHS, (2,)))
    read = rows_of(given, "given")[0]  # the arrays that the kernel is given
    if form.memory is None:
        assert len(read) == 1  # put together, and so copied
        return
    memory = form.memory(given)
    assert len(memory) == len(read)
    for theirs, ours in zip(memory, read, strict=True):
        assert np.shares_memory(theirs, ours) or len(ours) == 0


@pytest.mark.parametrize(
    ("lists", "dtype", "shape"),
    [
        ([[1, 2], [3]], "i8", (3,)),
        ([[1, 2], [3.5]], "f8", (3,)),
        ([[1.0], [], [2.0]], "f8", (2,)),
        ([[], []], "f8", (0,)),
        ([[1], []], "i8", (1,)),
        ([[True], [False]], "?", (2,)),
        ([[1j], [2]], "c16", (2,)),
        ([[[1.0, 2.0], [3.0, 4.0]], []], "f8", (2, 2)),
        ([((1, 2),), [(3, 4)]], "i8", (2, 2)),
        ([[np.float32(1)], [np.float32(2)]], "f4", (2,)),
        ([[np.ones(2, "f4")], [np.ones(2, "f4"), [1, 2]]], "f8", (3, 2)),
        (([1.0, np.nan], [2.0]), "f8", (3,)),
    ],
    ids=str,
)
def test_lists_have_the_dtype_that_numpy_finds_for_all_their_numbers(lists, dtype, shape):
    for packed in (nbp.pack_sequence(lists), nbp.pack_ragged(lists), nbp.pack_sequence(iter(lists))):
        assert packed.data.dtype == dtype
        assert packed.data.shape == shape
        assert packed.lengths.tolist() == [len(sequence) for sequence in lists]


def test_a_column_may_hold_lists():
    pd = library("pandas")
    packed = nbp.pack_sequence(pd.Series([[1, 2], [], [3.5]]))
    assert_same(packed, nbp.pack_sequence([[1, 2], [], [3.5]]))


def test_outer_lists_of_one_length_are_taken_too():
    ak, pa = library("awkward"), library("pyarrow")
    batch = filled((3, 4, 2), "f4")
    expected = nbp.pack_sequence(list(batch))
    assert_same(nbp.pack_sequence(ak.Array(batch)), expected)
    assert_same(nbp.pack_sequence(ak.to_regular(ak.Array(batch), axis=None)), expected)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(batch.ravel()), 2)
    assert_same(nbp.pack_sequence(pa.FixedSizeListArray.from_arrays(rows, 4)), expected)
    assert_same(nbp.pack_sequence(pa.FixedSizeListArray.from_arrays(rows, 4)[1:]), nbp.pack_sequence(list(batch[1:])))


# ---- values and offsets ----------------------------------------------------------------------------------------------

VALUES, OFFSETS = buffer_and_offsets(sequences_of(LENGTHS, (2,)))
FLAT = {
    "NumPy": lambda array: array,
    "lists": lambda array: array.tolist(),
    "DLPack": Exchanged,
    "torch": lambda array: library("torch").from_numpy(array),
    "awkward": lambda array: library("awkward").Array(array),
    "pandas": lambda array: (library("pandas").Series if array.ndim == 1 else library("pandas").DataFrame)(array),
    "pyarrow": lambda array: arrow([array])[0].values,
}


@pytest.mark.parametrize("kind", FLAT)
def test_values_and_offsets_may_be_of_any_library(kind):
    flat, rows = FLAT[kind], VALUES.astype("f8")
    expected = nbp.pack_ragged(rows, OFFSETS)
    assert_same(nbp.pack_ragged(flat(rows), flat(OFFSETS)), expected)
    assert_same(nbp.pack_ragged(flat(rows[:, 0].copy()), OFFSETS), expected.map(lambda data: data[:, 0].copy()))
    if kind != "lists":
        assert_same(nbp.pack_ragged(flat(VALUES), flat(OFFSETS.astype("i4"))), nbp.pack_ragged(VALUES, OFFSETS))


@njit(cache=True)
def pack_compiled(values, offsets):
    return nbp.pack_ragged(values, offsets)


def test_offsets_of_any_integers_will_do_as_int32_cu_seqlens_do():
    expected = nbp.pack_ragged(VALUES, OFFSETS)
    for dtype in ("i4", "u4", "i2", "u8"):
        assert_same(nbp.pack_ragged(VALUES, OFFSETS.astype(dtype)), expected)
    assert_same(pack_compiled(VALUES, OFFSETS.astype("i4")), expected)


def test_cu_seqlens_of_pytorch_will_do():
    torch = library("torch")
    cu_seqlens = torch.tensor(OFFSETS, dtype=torch.int32)
    assert_same(nbp.pack_ragged(torch.from_numpy(VALUES), cu_seqlens), nbp.pack_ragged(VALUES, OFFSETS))


# ---- tables, and what else NumPy takes -------------------------------------------------------------------------------

COLUMNS = np.array([[1.5, 1.0], [2.0, 0.0]])
TABLES = {
    "pandas, of one dtype": lambda: library("pandas").DataFrame(COLUMNS),
    "pandas, of two": lambda: library("pandas").DataFrame({"a": COLUMNS[:, 0], "b": np.array([True, False])}),
    "pandas, nullable": lambda: library("pandas").DataFrame({"a": [1.5, 2], "b": [1, 0]}).convert_dtypes(),
    "pandas, of Arrow": lambda: (
        library("pandas").DataFrame({"a": [1.5, 2], "b": [1, 0]}).convert_dtypes(dtype_backend="pyarrow")
    ),
    "pandas, categories": lambda: library("pandas").DataFrame(
        {"a": COLUMNS[:, 0], "b": library("pandas").Categorical([1, 0])}
    ),
    "Arrow table": lambda: library("pyarrow").table({"a": [1.5, 2], "b": [1, 0]}),
    "Arrow batch": lambda: library("pyarrow").record_batch({"a": [0, 1.5, 2], "b": [0, 1, 0]})[1:],
    "polars": lambda: library("polars").DataFrame({"a": [1.5, 2], "b": [True, False]}),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_rows_of_a_table_of_numbers_are_a_sequence(case):
    assert_same(nbp.pack_sequence([TABLES[case](), COLUMNS[:1]]), nbp.pack_sequence([COLUMNS, COLUMNS[:1]]))


def test_a_table_of_float32_and_bools_is_float32():
    table = library("pandas").DataFrame({"a": np.ones(2, "f4"), "b": [True, False]})
    assert_same(nbp.pack_sequence([table]).data, np.array([[1, 1], [1, 0]], "f4"))


class Labelled:
    """An array of NumPy's kind that gives a table to Arrow: as xarray's are."""

    ndim = 2

    def __init__(self, array):
        self.array = np.asarray(array)

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __arrow_c_stream__(self, requested_schema=None):
        raise AssertionError("not asked for")


def test_what_has_axes_is_an_array_whatever_it_gives_to_arrow():
    rows = Labelled(COLUMNS)
    assert_same(nbp.pack_sequence([rows]), nbp.pack_sequence([COLUMNS]))
    assert_same(nbp.pack_ragged(rows, Labelled([0, 1, 2])), nbp.pack_ragged(COLUMNS, [0, 1, 2]))
    assert_same(nbp.pack_padded_sequence(rows, Labelled([2, 1])), nbp.pack_padded_sequence(COLUMNS, [2, 1]))
    with pytest.raises(TypeError, match=r"sequences must be a list of arrays, one for each; got .*\.Labelled"):
        nbp.pack_sequence(rows)


@pytest.mark.parametrize("rows", [np.arange(6), np.ones((2, 3), "f4"), np.ones((3, 0), "?")], ids=str)
def test_empty_lists_have_the_dtype_and_the_shape_of_the_other_sequences(rows):
    expected = nbp.pack_sequence([rows[:0], rows, rows[:0], rows[:1]])
    assert_same(nbp.pack_sequence([[], rows, (), rows[:1]]), expected)
    assert_same(nbp.pad_sequence([[], rows]), nbp.pad_sequence([rows[:0], rows]))


def test_a_dtype_that_numpy_does_not_have_is_refused_with_the_way_out():
    bfloat16 = pytest.importorskip("ml_dtypes", reason="its dtypes are what is tested here").bfloat16
    rows = np.ones((2, 3), bfloat16)
    way_out = r"got bfloat16, which astype\(numpy.float32\) converts"
    for call in (
        lambda: nbp.pack_sequence([rows]),
        lambda: nbp.pack_ragged(rows, [0, 2]),
        lambda: nbp.GRU(3, 2)(rows),
        lambda: nbp.optim.SGD(0.1).step(rows[0], rows[0]),
    ):
        with pytest.raises(TypeError, match=way_out):
            call()


# ---- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", ["lists", "objects", *LIBRARIES])
def test_a_named_form_packs_to_the_same_batch(name, trailing):
    if name in LIBRARIES:
        library(name)
    packed = nbp.pack_sequence(sequences_of(LENGTHS, trailing, "f8"))
    assert_same(nbp.pack_sequence(nbp.unpack_ragged(packed, like=name)), packed)


def test_a_form_comes_back_like_itself(form):
    given = form.make(sequences_of(LENGTHS, (2,)))
    back = nbp.unpack_ragged(nbp.pack_sequence(given), like=given)
    assert_same(nbp.pack_sequence(back), nbp.pack_sequence(given))
    if form.make in (
        arrow,
        arrow_large,
        arrow_slice,
        arrow_chunked,
        pandas_arrow,
        polars_column,
        awkward,
        torch_jagged,
    ):
        assert type(back) is type(given)
        assert getattr(back, "dtype", None) == getattr(given, "dtype", None)
        if form.name == "pyarrow":
            assert back.equals(given)
    if form.name == "lists":
        assert [type(sequence) for sequence in back] == [np.ndarray] * len(LENGTHS)


@pytest.mark.parametrize("name", ["objects", *LIBRARIES])
def test_what_comes_back_shares_the_memory_of_one_buffer(name, monkeypatch):
    if name in LIBRARIES:
        library(name)
    packed, buffers = nbp.pack_sequence(sequences_of(LENGTHS, (2,))), []

    def keep(like, buffer):
        buffers.append(buffer[0])
        return in_form(like, buffer)

    in_form = nbp.packing.ragged.in_form
    monkeypatch.setattr(nbp.packing.ragged, "in_form", keep)
    back = nbp.unpack_ragged(packed, like=name)
    for rows in next(form for form in FORMS.values() if form.name == name).memory(back):
        assert np.shares_memory(rows, buffers[0]) or rows.size == 0


def test_a_column_comes_back_with_its_name_and_index():
    column = pandas_column(sequences_of(LENGTHS))
    packed = nbp.pack_sequence(column)
    back = nbp.unpack_ragged(packed, like=column)
    assert back.name == "utterance"
    assert back.index.tolist() == [7, 8, 9, 10, 11]
    fewer = nbp.unpack_ragged(packed, like=column[:2])
    assert fewer.index.tolist() == [0, 1, 2, 3, 4]


def test_arrays_of_a_library_come_back_as_its_arrays():
    packed = nbp.pack_ragged(VALUES, OFFSETS)
    torch = library("torch")
    values, offsets = nbp.unpack_ragged(packed, like=torch.ones(1))
    assert isinstance(values, torch.Tensor)
    assert_same((values.numpy(), offsets.numpy()), (VALUES, OFFSETS))

    class Namespaced(Exchanged):
        def __array_namespace__(self):
            return np

    assert_same(nbp.unpack_ragged(packed, like=Namespaced(VALUES)), (VALUES, OFFSETS))
    assert_same(nbp.unpack_ragged(packed, like=VALUES), (VALUES, OFFSETS))


def test_lists_come_back_as_lists():
    lists = [[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]]
    assert nbp.unpack_ragged(nbp.pack_sequence(lists), like=lists) == lists
    assert nbp.unpack_ragged(nbp.pack_sequence(lists), like="lists") == lists


# ---- what is missing, and what is no ragged data of numbers ----------------------------------------------------------

nan = float("nan")
MISSING = {
    "list": (lambda: [[1.0, 2.0], [3.0, None]], "[1][1]"),
    "list of rows": (lambda: [[[1.0, 2.0]], [[3.0, None]]], "[1][0][1]"),
    "whole list": (lambda: [[1.0], None], "[1]"),
    "NaN for a list": (lambda: [[1.0], nan], "[1]"),
    "object array": (lambda: objects([np.ones(2), None]), "[1]"),
    "number in an object array": (lambda: objects([np.ones(2), np.array([None, 1.0])]), "[1][0]"),
    "Awkward list": (lambda: library("awkward").Array([[1.0], None]), "[1]"),
    "Awkward number": (lambda: library("awkward").Array([[1.0], [2.0, None]]), "[1][1]"),
    "Awkward number in a row": (lambda: library("awkward").Array([[[1, 2]], [[3, 4], [None, 5]]]), "[1][1][0]"),
    "Awkward masked": (lambda: library("awkward").mask(awkward([np.ones(2)] * 2), [True, False]), "[1]"),
    "Arrow list": (lambda: library("pyarrow").array([[1.0], None]), "[1]"),
    "Arrow number": (lambda: library("pyarrow").array([[1], [2, None]]), "[1][1]"),
    "Arrow row": (lambda: library("pyarrow").array([[[1], None]]), "[0][1]"),
    "Arrow nulls": (lambda: library("pyarrow").array([[None]]), "[0][0]"),
    "Arrow second chunk": (lambda: library("pyarrow").chunked_array([[[1]], [[2], [None]]]), "[2][0]"),
    "pandas None": (lambda: library("pandas").Series([np.ones(2), None]), "[1]"),
    "pandas NaN": (lambda: library("pandas").Series([np.ones(2), np.ones(1), nan]), "[2]"),
    "pandas NA": (lambda: library("pandas").Series([library("pandas").NA, np.ones(2)]), "[0]"),
    "NA in a list": (lambda: [np.ones(2), library("pandas").NA], "[1]"),
    "list of columns": (lambda: [library("pandas").Series([1, None], dtype="Int64")], "[0][1]"),
    "table": (
        lambda: [library("pandas").DataFrame({"a": [1.5, 2], "b": [1, None]}, dtype=object).convert_dtypes()],
        "[0]['b'][1]",
    ),
    "Arrow table": (lambda: [library("pyarrow").table({"a": [1.5, 2], "b": [1, None]})], "[0][1]['b']"),
    "polars table": (lambda: [library("polars").DataFrame({"a": [1.5, 2], "b": [1, None]})], "[0][1]['b']"),
    "polars list": (lambda: library("polars").Series([[1.0], None]), "[1]"),
    "polars number": (lambda: library("polars").Series([[1.0], [2.0, None]]), "[1][1]"),
    "list of Arrow arrays": (lambda: [library("pyarrow").array([1, None])], "[0][1]"),
    "list of Awkward arrays": (lambda: [library("awkward").Array([1, None])], "[0][1]"),
}


@pytest.mark.parametrize("case", MISSING)
def test_missing_values_are_refused_and_the_error_tells_where(case):
    make, place = MISSING[case]
    data = make()
    for name, function in {"sequences": nbp.pack_sequence, "values": nbp.pack_ragged}.items():
        with pytest.raises(ValueError, match="must have no missing values") as error:
            function(data)
        assert str(error.value).endswith(f"{name}{place} is missing")


def test_missing_values_outside_a_slice_do_no_harm():
    ak, pa = library("awkward"), library("pyarrow")
    lists = [[None], None, [1.0, 2.0], [3.0], [4.0, None]]
    expected = nbp.pack_sequence(lists[2:4])
    assert_same(nbp.pack_sequence(ak.Array(lists)[2:4]), expected)
    assert_same(nbp.pack_sequence(pa.array(lists)[2:4]), expected)


REFUSED = {
    "Awkward strings": (lambda: library("awkward").Array(["ab", "c"]), TypeError, "lists of numbers; got 2 * string"),
    "Awkward lists of strings": (lambda: library("awkward").Array([["a"]]), TypeError, "hold numbers"),
    "Awkward records": (lambda: library("awkward").Array([[{"x": 1}]]), TypeError, "hold numbers"),
    "Awkward record": (lambda: library("awkward").Record({"x": [1]}), TypeError, "Awkward array"),
    "Awkward union": (lambda: library("awkward").Array([[1.0, [2.0]]]), TypeError, "hold numbers"),
    "Awkward numbers": (lambda: library("awkward").Array([1.0, 2.0]), TypeError, "lists of numbers; got 2 * float64"),
    "Awkward dates": (lambda: awkward([np.zeros(2, "M8[s]")]), TypeError, "datetime64"),
    "Awkward uneven rows": (lambda: library("awkward").Array([[[1], [2, 3]]]), ValueError, "one size; got lists of 1"),
    "Awkward of no sequences": (lambda: awkward([np.ones(1)])[:0], ValueError, "at least one sequence"),
    "Awkward types": (
        lambda: library("awkward").to_backend(awkward([np.ones(1)]), "typetracer"), TypeError, "backend 'cpu'",
    ),
    "Arrow strings": (lambda: library("pyarrow").array([["a"]]), TypeError, "got list<item: string>"),
    "Arrow structs": (lambda: library("pyarrow").array([[{"x": 1}]]), TypeError, "hold numbers"),
    "Arrow dates": (lambda: library("pyarrow").array([[datetime.date(2020, 1, 1)]]), TypeError, "date32"),
    "Arrow numbers": (lambda: library("pyarrow").array([1.0]), TypeError, "lists of numbers; got double"),
    "Arrow table": (lambda: library("pyarrow").table({"x": [[1]]}), TypeError, "of a table; got pyarrow.lib.Table"),
    "Arrow scalar": (lambda: library("pyarrow").array([[1]])[0], TypeError, "got pyarrow.lib.ListScalar"),
    "Arrow uneven rows": (lambda: library("pyarrow").array([[[1], [2, 3]]]), ValueError, "one size; got lists of 1"),
    "Arrow of no chunks": (
        lambda: library("pyarrow").chunked_array([], library("pyarrow").list_(library("pyarrow").int8())),
        ValueError, "at least one sequence",
    ),
    "pandas numbers": (lambda: library("pandas").Series([1.0, nan]), TypeError, "column of arrays; got one of float64"),
    "pandas strings": (lambda: library("pandas").Series(["ab", "c"]), TypeError, "column of arrays"),
    "pandas table": (lambda: library("pandas").DataFrame({"x": [1]}), TypeError, "column of arrays, as df"),
    "pandas groups": (
        lambda: library("pandas").DataFrame({"x": [1, 1], "y": [1, 2]}).groupby("x"), TypeError, "column of arrays",
    ),
    "pandas time": (lambda: [library("pandas").Timestamp(0)], TypeError, "Timestamp"),
    "table of dates": (
        lambda: [library("pandas").DataFrame({"a": [1], "b": [library("pandas").Timestamp(0)]})], TypeError,
        "['b'] must be a column of numbers; got one of datetime64",
    ),
    "Arrow table of lists": (lambda: [library("pyarrow").table({"x": [[1]]})], TypeError, "columns hold numbers"),
    "polars numbers": (lambda: library("polars").Series([1.0]), TypeError, "column of lists or arrays, as df"),
    "polars table": (lambda: library("polars").DataFrame({"x": [1]}), TypeError, "column of lists or arrays, as df"),
    "polars objects": (lambda: [library("polars").Series([object()])], TypeError, "hold numbers"),
    "polars query": (lambda: [library("polars").LazyFrame({"x": [1]})], TypeError, "got polars.lazyframe"),
    "tensor of bfloat16": (
        lambda: [library("torch").ones(2, dtype=library("torch").bfloat16)], TypeError, "tensor.float(); got one of",
    ),
    "dense tensor": (lambda: library("torch").ones(2, 3), TypeError, "list of tensors or a nested tensor"),
    "transposed nested tensor": (
        lambda: torch_jagged([np.ones((2, 3), "f4")]).transpose(1, 2), TypeError, "ragged dimension second",
    ),
    "nested tensor with a gradient": (
        lambda: torch_jagged([np.ones((2, 3), "f4")]).requires_grad_(), TypeError, "detach",
    ),
    "tensor on no device": (lambda: [library("torch").ones(2, device="meta")], TypeError, "sequences[0] must be"),
    "array by DLPack": (lambda: Exchanged(np.ones((2, 3))), TypeError, "list of arrays"),
    "list on a CUDA device": (lambda: [Exchanged(np.ones(2), (2, 0))], TypeError, "on a device (CUDA)"),
    "list in CUDA's memory": (lambda: [OnCuda()], TypeError, "on a device (CUDA)"),
    "object array of two axes": (lambda: np.ones((2, 2), object), TypeError, "list of arrays"),
    "object array of numbers": (lambda: np.ones(2, object), ValueError, "agree in shape"),
    "lists of strings": (lambda: [["a"], ["b"]], TypeError, "must have a bool, integer"),
    "uneven lists": (lambda: [[[1.0]], [[1.0], [1.0, 2.0]]], TypeError, "sequences[1] must be an array"),
    "lists that disagree": (lambda: [[[1.0]], [[1.0, 2.0]]], ValueError, "got (1, 2) at index 1"),
    "integers beyond 64 bits": (lambda: [[2**70], [1]], TypeError, "must have a bool, integer"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_ragged_data_of_numbers_is_refused(case):
    make, error, words = REFUSED[case]
    with pytest.raises(error) as raised:
        nbp.pack_sequence(make())
    assert str(raised.value).startswith(("sequences", "the lengths of sequences"))
    assert words in str(raised.value)


@pytest.mark.parametrize("offsets", [[0, 2, 9], [0, 7, 4], [0, -3, 4], [5, 1, 4], [-4, 0, 4]], ids=str)
def test_offsets_of_a_damaged_arrow_array_are_never_followed(offsets):
    pa = library("pyarrow")
    memory = np.array([0, 2, 4], "i4")
    buffers = [None, pa.py_buffer(memory)]
    array = pa.Array.from_buffers(pa.list_(pa.float64()), 2, buffers, children=[pa.array(np.ones(4))])
    memory[:] = offsets  # of which Arrow would not have made an array
    with pytest.raises(ValueError, match="sequences must"):
        nbp.pack_sequence(array)


@pytest.mark.parametrize(("starts", "stops"), [([0, 3], [2, 5]), ([-1, 0], [1, 2]), ([3, 0], [1, 2])], ids=str)
def test_starts_and_stops_of_a_damaged_awkward_array_are_never_followed(starts, stops):
    ak = library("awkward")
    index = [ak.index.Index64(np.array(part)) for part in (starts, stops)]
    damaged = ak.Array(ak.contents.ListArray(*index, ak.contents.NumpyArray(np.ones(4))))
    with pytest.raises(ValueError, match="sequences must hold sequences within its 4 rows"):
        nbp.pack_sequence(damaged)


def test_values_without_offsets_have_to_be_ragged():
    with pytest.raises(TypeError, match="offsets must be given"):
        nbp.pack_ragged(VALUES)
    with pytest.raises(TypeError, match=r"values must be an array; got .*Exchanged: it is on a device \(CUDA\)"):
        nbp.pack_ragged(Exchanged(VALUES, (2, 0)), OFFSETS)


LIKE = {
    "unknown name": (
        "parquet",
        ValueError,
        "'lists', 'objects', 'awkward', 'pyarrow', 'pandas', 'polars', 'torch'; got 'parq",
    ),
    "number": (3, TypeError, "got int: it is of no form that is known"),
    "one way only": (Exchanged(VALUES), TypeError, "has no function from_dlpack"),
    "device": (Exchanged(VALUES, (2, 0)), TypeError, "Exchanged: it is on a device (CUDA)"),
}


@pytest.mark.parametrize("case", LIKE)
def test_a_like_that_is_no_form_is_refused(case):
    like, error, words = LIKE[case]
    with pytest.raises(error, match="like must be") as raised:
        nbp.unpack_ragged(nbp.pack_ragged(VALUES, OFFSETS), like)
    assert words in str(raised.value)


@pytest.mark.parametrize(("name", "dtype"), [("pyarrow", "c8"), ("torch", "g")])
def test_a_form_that_cannot_hold_the_dtype_is_refused(name, dtype):
    library(name)
    packed = nbp.pack_sequence(sequences_of(LENGTHS, (2,), dtype))
    with pytest.raises(TypeError, match=f"like must be a form that can hold rows of dtype .*; got '{name}'"):
        nbp.unpack_ragged(packed, like=name)


# ---- libraries that are not there ------------------------------------------------------------------------------------


def test_no_library_is_imported_unless_its_form_is_used():
    # They cannot be imported here. To look for them afterwards would not do, as Numba imports Awkward by itself.
    script = f"""
import sys
sys.modules.update(dict.fromkeys({LIBRARIES}))
import numpy as np, numba_pack as nbp
packed = nbp.pack_sequence([np.ones((2, 3)), [[1.0, 2.0, 3.0]]])
nbp.unpack_ragged(nbp.pack_ragged([[1.0], [2.0, 3.0]]), like="lists")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


@pytest.mark.parametrize("name", ["awkward", "pyarrow", "pandas", "polars", "torch"])
def test_a_library_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    for module in ("awkward", "arrow", "pandas", "polars", "nested"):
        monkeypatch.delitem(sys.modules, f"numba_pack.interop.{module}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install {name}"):
        nbp.unpack_ragged(nbp.pack_ragged(VALUES, OFFSETS), like=name)


# ---- compiled code ---------------------------------------------------------------------------------------------------


def test_compiled_code_takes_arrays_and_lists_of_them_and_says_so():
    @njit
    def pack_alone(values):
        return nbp.pack_ragged(values)

    @njit
    def unpack_like(packed):
        return nbp.unpack_ragged(packed, "awkward")

    sequences = sequences_of([2, 3])
    assert_same(pack_alone(tuple(sequences)), nbp.pack_sequence(sequences))
    with pytest.raises(TypingError, match="offsets must be given where values is one array"):
        pack_alone(VALUES)
    with pytest.raises(TypingError, match="values must be a list or tuple of arrays"):
        pack_alone(3)
    with pytest.raises(TypingError, match="like must be None in compiled code"):
        unpack_like(nbp.pack_ragged(VALUES, OFFSETS))
