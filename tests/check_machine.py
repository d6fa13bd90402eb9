"""The engine as compiled for another processor: run by test_machine.py in a process with Numba's CPU name set.

Prints the bytes of a vector register, then ``ok``; an AssertionError is what is wrong.
"""

import sys
from pathlib import Path

import helpers
import numpy as np
from helpers import assert_same_bits, infer, make_case, make_layer, of_sequences, train

import numba_pack as nbp
from numba_pack.cpu import engine
from numba_pack.simd.lanes import lanes_of
from numba_pack.simd.machine import MACHINE

sys.path += [str(Path(__file__).with_name(room)) for room in ("cells", "cpu", "interop")]

import test_activations
import test_factors
import test_matrix_tile
import test_noise
import test_onnx_cells

LAYERS = [("lstm", np.float32), ("lstm", np.float64), ("lstm-proj", np.float32), ("gru", np.float32)]
SIZES = [(1, 2), (3, 4), (8, 8), (7, 37), (33, 70)]
LENGTHS = (5, 2, 0, 9, 9, 1, 4, 7)


def check_layer(cell, dtype, inputs, units):
    layer = make_layer(cell, inputs, units, num_layers=2, bidirectional=True, dtype=dtype)
    case = make_case(layer, LENGTHS)
    results, expected = train(layer, case), helpers.oracle(layer, case)
    helpers.assert_results_near(layer, LENGTHS, results, expected)
    assert_same_bits(infer(layer, case), (results.outputs, results.state))
    for i in range(len(LENGTHS)):
        alone = train(layer, of_sequences(case, [i]))
        assert_same_bits((alone.outputs[0], alone.d_inputs[0]), (results.outputs[i], results.d_inputs[i]))
    engine.WORTH_A_THREAD = 1.0
    with nbp.threads(3):
        assert_same_bits(train(layer, case), results)


def check_noise():
    for dtype in (np.float32, np.float64):
        for columns in test_noise.WIDTHS:
            test_noise.test_a_mask_is_that_of_its_words_and_nothing_beside_it_is_written(columns, dtype)
            test_noise.test_rows_between_layers_are_multiplied_by_the_mask_of_their_words(columns, dtype)
        test_noise.test_a_unit_is_kept_from_its_word_on_and_no_further(dtype)


def check_onnx():
    for of in (
        test_onnx_cells.Composition("LSTM", ("Softplus", "Elu", "Softsign"), clip=True, peepholes=True),
        test_onnx_cells.Composition("GRU", ("HardSigmoid", "ScaledTanh")),
    ):
        test_onnx_cells.test_outputs_and_states_are_those_of_the_definition(of, np.float32)


def check_factors():
    """Short ones: each processor rounds to bfloat16 in its own way."""
    for kind in test_factors.PARTS.keys() & test_factors.KINDS:
        test_factors.test_a_row_is_the_words_of_its_numbers_in_bfloat16_part_after_part(kind)
        test_factors.test_a_product_with_a_matrix_as_it_lies_is_that_of_its_factors(kind)
        test_factors.test_the_columns_of_a_block_become_rows_of_words(kind)


def check_tiles():
    """The matrix unit's plain loops, with vectors that are shorter than its own."""
    for factors in test_matrix_tile.PARTS:
        test_matrix_tile.test_products_are_those_of_float64_for_all_shapes(factors, 0, "loops")
        test_matrix_tile.test_vectors_of_gates_lie_apart_and_panels_side_by_side(factors, "loops")


def check_activation(name, dtype):
    """Error, shape, limits; without fused multiply-adds the error is larger, and tanh is not quite monotone."""
    x = test_activations.dense(dtype)[::10]
    bound = test_activations.BOUNDS[name, dtype] + test_activations.WITHOUT_FMA * (not MACHINE.fma)
    for form in ("lanes", "scalars"):
        function = test_activations.MAPPED[name, form]
        y = function(x)
        errors = test_activations.ulps(y, test_activations.exact(name, x))
        assert errors.max() <= bound, (name, form, errors.max())
        assert (np.diff(y) >= 0).all() or (name == "tanh" and not MACHINE.fma), (name, form)
        assert name == "sigmoid" or (function(-x) == -y).all(), form
        ends = function(np.array([-np.inf, 0, np.inf, np.nan], dtype))
        expected = [0, 0.5, 1, np.nan] if name == "sigmoid" else [-1, 0, 1, np.nan]
        np.testing.assert_array_equal(ends, np.array(expected, dtype))


if __name__ == "__main__":
    assert lanes_of(np.float32) == MACHINE.register_bytes // 4 == 2 * lanes_of(np.float64)
    print(MACHINE.register_bytes)
    if sys.argv[1] == "layers":
        for cell, dtype in LAYERS:
            for size in SIZES:
                check_layer(cell, dtype, *size)
    elif sys.argv[1] == "noise":
        check_noise()
    elif sys.argv[1] == "onnx":
        check_onnx()
    elif sys.argv[1] == "factors":
        check_factors()
    elif sys.argv[1] == "tiles":
        check_tiles()
    else:
        for dtype in (np.float32, np.float64):
            for name in ("sigmoid", "tanh"):
                check_activation(name, dtype)
    print("ok")
