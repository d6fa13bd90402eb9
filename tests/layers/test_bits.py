"""Results that are equal bit for bit, whatever a sequence shares its batch, its call and its threads with."""

import copy

import helpers
import numpy as np
import pytest
from divided import divisions
from helpers import CELLS, DTYPES, assert_same_bits, infer, make_case, make_layer, of_sequences, train
from hypothesis import given, settings
from hypothesis import strategies as st

import numba_pack as nbp
from numba_pack.cpu import engine, packer
from numba_pack.cpu.scan_back import BLOCK_ROWS
from numba_pack.layers.forms import form_of

LENGTHS = (5, 2, 0, 9, 9, 1, 4, 0, 7, 3, 9, 2, 6)  # 13 sequences: tiles of one to six rows at some step
LONG = tuple(6 * n for n in LENGTHS)  # more rows than two blocks of the weights' gradients


@pytest.fixture(
    params=[(cell, dtype.values[0]) for cell in CELLS for dtype in DTYPES], ids=lambda p: f"{p[0]}-{p[1].__name__}"
)
def layer(request):
    """Two layers and both directions, with more than one panel of units in either dtype."""
    cell, dtype = request.param
    return make_layer(cell, 7, 37, num_layers=2, bidirectional=True, dtype=dtype)


@pytest.fixture
def one_way(layer):
    return make_layer(helpers.cell_of(layer), 7, 37, num_layers=2, dtype=layer.dtype)


@pytest.fixture
def used(monkeypatch):
    """Makes any work worth a thread; holds into how many parts and among how many threads each call was divided."""
    monkeypatch.setattr(engine, "WORTH_A_THREAD", 1.0)
    monkeypatch.setattr(packer, "WORTH_A_THREAD", 1)
    return divisions(monkeypatch)


def per_sequence(results):
    """The results that belong to one sequence each: all but the gradients of the parameters."""
    return results[:4]


def of_results(results, chosen):
    chosen = list(chosen)
    outputs, state, d_inputs, d_hx = per_sequence(results)
    return (
        [outputs[i] for i in chosen], tuple(part[:, chosen] for part in state),
        [d_inputs[i] for i in chosen], tuple(part[:, chosen] for part in d_hx),
    )  # fmt: skip


@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
def test_a_sequence_alone_equals_the_same_sequence_in_a_batch(layer, with_hx):
    case = make_case(layer, LENGTHS, with_hx=with_hx)
    batch, plain = train(layer, case), infer(layer, case)
    for i in range(len(LENGTHS)):
        alone = of_sequences(case, [i])
        assert_same_bits(per_sequence(train(layer, alone)), of_results(batch, [i]), f"sequence {i}")
        assert_same_bits(infer(layer, alone), ([plain[0][i]], tuple(part[:, [i]] for part in plain[1])))


@settings(deadline=None, max_examples=60)
@given(
    cell=st.sampled_from(CELLS),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=14),
    sizes=st.tuples(st.integers(1, 20), st.integers(2, 70)),
    data=st.data(),
)
def test_a_sequence_gives_the_same_in_any_choice_and_order_of_the_others(cell, lengths, sizes, data):
    layer = make_layer(cell, *sizes, num_layers=2, bidirectional=True)
    case = make_case(layer, lengths)
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True), label="chosen")
    some = train(layer, of_sequences(case, chosen))
    assert_same_bits(per_sequence(some), of_results(train(layer, case), chosen))


@pytest.mark.parametrize("lengths", [LENGTHS, LONG], ids=["one-block", "three-blocks"])
@pytest.mark.parametrize("n", [2, 3, 4], ids=lambda n: f"{n}-threads")
def test_any_number_of_threads_gives_the_same_gradients_of_the_weights_too(layer, used, n, lengths):
    assert -(-sum(lengths) // BLOCK_ROWS) == (1 if lengths is LENGTHS else 3)
    case = make_case(layer, lengths)
    with nbp.threads(1):
        expected, plain = train(layer, case), infer(layer, case)
    assert not [call for call in used if call != (1, 1)]
    with nbp.threads(n):
        assert_same_bits(train(layer, case), expected)
        assert_same_bits(infer(layer, case), plain)
    # forward, backward, weights, inference: each call is divided, among all the threads
    assert used[-4:] == [(n, n)] * 4


def test_more_threads_than_units_and_sequences_give_the_same(used):
    layer = make_layer("gru", 2, 3)
    case = make_case(layer, (4, 0, 2))
    with nbp.threads(1):
        expected = train(layer, case)
    with nbp.threads(16):
        assert_same_bits(train(layer, case), expected)
    assert used[-1] == (16, 16)


def test_one_thread_gives_the_same_whether_the_work_is_divided_for_memory_or_not(layer, monkeypatch):
    monkeypatch.setitem(vars(layer), "_may_be_few", False)  # few rows are not divided
    case = make_case(layer, LENGTHS)
    expected = infer(layer, case)
    found = divisions(monkeypatch)
    whole = engine._scratch(layer.weights, form_of(nbp.pack_sequence(case.sequences), 7, layer.dtype, False).batch)
    for n in (2, 5, 1000):
        monkeypatch.setattr(engine, "SCRATCH_BYTES", whole // n)
        with nbp.threads(1):
            assert_same_bits(infer(layer, case), expected)
    parts = [parts for parts, _ in found]
    assert parts[0] in (2, 3) and parts[1] in (5, 6) and parts[2] == sum(n > 0 for n in LENGTHS) + 1


def test_a_wide_batch_is_divided_into_parts_that_stay_in_the_cache_and_gives_the_same(monkeypatch):
    """All sequences step by step would fetch all their states from memory, at every step."""
    layer, x = nbp.GRU(2, 4, rng=0), np.random.default_rng(0).standard_normal((3, 60_000, 2)).astype("f4")
    found = divisions(monkeypatch)
    with nbp.threads(1):
        output, h_n = layer(x)
        scratch = engine._scratch(layer.weights, form_of(x, 2, layer.dtype, False).batch)
        assert found == [(-(-scratch // engine.PART_BYTES), 1)]
        assert found[0][0] > 1
        monkeypatch.setattr(engine, "PART_BYTES", 1 << 40)
        assert_same_bits([output, h_n], list(layer(x)))
    assert found[1:] == [(1, 1)]  # then it is not divided


@pytest.mark.parametrize("cut", [1, 3, 8], ids=lambda cut: f"cut-at-{cut}")
@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
def test_chunks_with_the_state_carried_equal_the_whole(one_way, cut, with_hx):
    case = make_case(one_way, LENGTHS, with_hx=with_hx)
    whole = train(one_way, case)

    def chunk(case, part):
        return case._replace(sequences=[x[part] for x in case.sequences], d_outputs=[d[part] for d in case.d_outputs])

    def as_hx(state):
        return state if helpers.has_c(helpers.cell_of(one_way)) else state[0]

    first, second = chunk(case, slice(cut)), chunk(case, slice(cut, None))
    before = infer(one_way, first)
    after = infer(one_way, second._replace(hx=as_hx(before[1])))
    outputs = [np.concatenate(pair) for pair in zip(before[0], after[0], strict=True)]
    assert_same_bits(outputs, whole.outputs)
    assert_same_bits(after[1], whole.state)

    # and back: what comes out for the state of the second chunk goes into the last state of the first
    later = train(one_way, second._replace(hx=as_hx(before[1])))
    earlier = train(one_way, first._replace(d_state=as_hx(later.d_hx)))
    d_inputs = [np.concatenate(pair) for pair in zip(earlier.d_inputs, later.d_inputs, strict=True)]
    assert_same_bits(d_inputs, whole.d_inputs)
    assert_same_bits(earlier.d_hx, whole.d_hx)


def test_one_step_at_a_time_equals_the_whole(one_way):
    case = make_case(one_way, (6, 6, 6))
    output, state = one_way(np.stack(case.sequences, 1), case.hx)
    carried = case.hx
    for t in range(6):
        step, carried = one_way(np.stack([x[t : t + 1] for x in case.sequences], 1), carried)
        assert_same_bits(step[0], output[t])
    assert_same_bits(carried, state)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_padded_input_equals_packed_input_of_equal_lengths(layer, batch_first):
    case = make_case(layer, (5, 5, 5, 5))
    packed = train(layer, case)
    padded = make_layer(
        helpers.cell_of(layer), 7, 37, num_layers=2, bidirectional=True, dtype=layer.dtype, batch_first=batch_first
    )
    axis = 0 if batch_first else 1
    output, state, tape = padded.forward(np.stack(case.sequences, axis), case.hx)
    gradients = padded.backward(tape, np.stack(case.d_outputs, axis), case.d_state)
    assert_same_bits(list(np.moveaxis(output, axis, 0)), packed.outputs)
    assert_same_bits(helpers.as_tuple(state), packed.state)
    assert_same_bits(list(np.moveaxis(gradients.input, axis, 0)), packed.d_inputs)
    assert_same_bits(helpers.as_tuple(gradients.hx), packed.d_hx)
    assert_same_bits(layer.views(gradients.parameters), packed.d_parameters)


def test_a_single_sequence_equals_a_batch_of_one(layer):
    case = make_case(layer, (6,), with_hx=False)
    batch = train(layer, case)
    d_state = tuple(part[:, 0] for part in helpers.as_tuple(case.d_state))
    output, state, tape = layer.forward(case.sequences[0])
    gradients = layer.backward(tape, case.d_outputs[0], d_state if len(d_state) == 2 else d_state[0])
    assert_same_bits(output, batch.outputs[0])
    assert_same_bits(helpers.as_tuple(state), tuple(part[:, 0] for part in batch.state))
    assert_same_bits(gradients.input, batch.d_inputs[0])
    assert_same_bits(layer.views(gradients.parameters), batch.d_parameters)


def test_inference_equals_forward_where_nothing_is_dropped(layer):
    case = make_case(layer, LENGTHS)
    results = train(layer, case)
    assert_same_bits(infer(layer, case), (results.outputs, results.state))


def test_a_call_made_twice_gives_the_same(layer):
    case = make_case(layer, LENGTHS)
    assert_same_bits(train(layer, case), train(layer, case))


@pytest.mark.parametrize("with_hx", [False, True], ids=["no-hx", "hx"])
def test_what_earlier_calls_left_in_memory_does_not_matter(layer, with_hx):
    """Buffers are used again: here they are full of NaN, or of another batch's numbers."""
    case = make_case(layer, LENGTHS, with_hx=with_hx)
    expected, plain = train(layer, case), infer(layer, case)
    for lengths in (LENGTHS, [n + 2 for n in LENGTHS]):
        spoilt = make_case(layer, lengths)
        for array in (*spoilt.sequences, *spoilt.d_outputs, *helpers.as_tuple(spoilt.hx)):
            array[...] = np.nan
        train(layer, spoilt)
        assert_same_bits(train(layer, case), expected)
        infer(layer, spoilt)
        assert_same_bits(infer(layer, case), plain)


def test_several_tapes_at_a_time_and_results_once_returned_keep_their_numbers(layer):
    cases = [make_case(layer, np.roll(LENGTHS, i), rng=i) for i in range(4)]
    expected = [train(layer, case) for case in cases]
    kept = copy.deepcopy(expected)
    calls = [layer.forward(nbp.pack_sequence(case.sequences), case.hx) for case in cases]
    for i in (2, 0, 3, 1):
        output, state, tape = calls[i]
        gradients = layer.backward(tape, nbp.pack_sequence(cases[i].d_outputs), cases[i].d_state)
        assert_same_bits(nbp.unpack_sequence(output), expected[i].outputs)
        assert_same_bits(helpers.as_tuple(state), expected[i].state)
        assert_same_bits(nbp.unpack_sequence(gradients.input), expected[i].d_inputs)
        assert_same_bits(helpers.as_tuple(gradients.hx), expected[i].d_hx)
        assert_same_bits(layer.views(gradients.parameters), expected[i].d_parameters)
    assert_same_bits(expected, kept)


@pytest.mark.parametrize("where", ["input", "hx"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_nan_and_infinity_stay_in_their_sequence(layer, bad, where):
    case = make_case(layer, LENGTHS)
    clean, plain = train(layer, case), infer(layer, case)
    spoilt = (3, 8)
    for i in spoilt:
        if where == "input":
            case.sequences[i][1] = bad
        else:
            for part in helpers.as_tuple(case.hx):
                part[:, i] = bad
    others = [i for i in range(len(LENGTHS)) if i not in spoilt]
    results = train(layer, case)
    assert_same_bits(of_results(results, others), of_results(clean, others))
    outputs, state = infer(layer, case)
    assert_same_bits([outputs[i] for i in others], [plain[0][i] for i in others])
    assert_same_bits(tuple(part[:, others] for part in state), tuple(part[:, others] for part in plain[1]))
    if np.isnan(bad):
        assert all(np.isnan(results.outputs[i]).any() and np.isnan(outputs[i]).any() for i in spoilt)


def test_nan_in_one_sequence_reaches_its_own_results_alone_with_threads_too(layer, used):
    case = make_case(layer, LENGTHS)
    with nbp.threads(4):
        clean = train(layer, case)
        case.sequences[0][0] = np.nan
        others = range(1, len(LENGTHS))
        assert_same_bits(of_results(train(layer, case), others), of_results(clean, others))


@pytest.mark.parametrize("cell", CELLS)
def test_no_form_of_the_input_has_a_kernel_compiled_anew(cell):
    """A kernel takes seconds to compile: one for each cell and dtype, whatever the arrays are like."""
    from numba_pack.cpu import kernels, team

    layer = make_layer(cell, 3, 4, num_layers=2, bidirectional=True)
    case = make_case(layer, (3, 2))
    train(layer, case)
    infer(layer, case)
    calls = team._call_each, team._share_each, kernels.call_few

    def compiled():
        return [len(call.signatures) for call in calls], kernels._compiled.cache_info().currsize

    before = compiled()
    for array in [x for part in (case.sequences, helpers.as_tuple(case.hx), case.d_outputs) for x in part]:
        array.flags.writeable = False
    packed = nbp.pack_sequence(case.sequences)
    for field in packed:
        field.flags.writeable = False
    d_output = nbp.pack_sequence(case.d_outputs).data
    for one in (
        packed,
        packed._replace(data=np.asfortranarray(packed.data)),
        packed._replace(data=packed.data[:, ::-1]),
    ):
        layer.backward(layer.forward(one, case.hx)[2], np.asfortranarray(d_output), case.d_state)
        layer(one, case.hx)
    with nbp.threads(2):
        train(layer, case._replace(hx=None))
    layer(case.sequences[0])
    assert compiled() == before
