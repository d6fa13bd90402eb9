"""The examples that need a library besides, one that computes itself: each is run where that library is installed."""

import importlib.util

import pytest
from test_examples import CHANCE, SERVED, number, run_example


def test_the_tagger_is_served_as_pytorch_has_trained_it(tmp_path):
    pytest.importorskip("torch", reason="the example trains with PyTorch")
    pytest.importorskip("safetensors", reason="the example writes a safetensors file")
    trained = run_example("torch_tagger/train.py", tmp_path, "--epochs", "2", "--output", "tagger.safetensors")
    in_torch = number(r"epoch 2: .* ([\d.]+)% of test frames", trained)
    assert in_torch > 3 * CHANCE
    served = number(SERVED, run_example("torch_tagger/serve.py", tmp_path, "--model", "tagger.safetensors"))
    assert abs(served - in_torch) <= 0.02  # a few frames in which two speakers score all but alike


def test_the_accelerated_model_ends_where_pytorch_does(tmp_path):
    pytest.importorskip("torch", reason="the example is a PyTorch model")
    printed = run_example("torch_accelerate.py", tmp_path, "--epochs", "6", "--hidden-size", "32")
    assert printed.startswith("lstm: replaced\n")
    reached = [number(rf"^{name} .* ([\d.]+)% of test right", printed) for name in ("PyTorch", "accelerated")]
    assert min(reached) > 4 * CHANCE
    assert abs(reached[0] - reached[1]) < 2  # rounding, over 60 steps


@pytest.mark.skipif(
    not importlib.util.find_spec("keras") or not any(map(importlib.util.find_spec, ("tensorflow", "jax", "torch"))),
    reason="the example trains with Keras, on one of its backends",
)
def test_the_layers_of_keras_give_the_scores_that_keras_gives(tmp_path):
    printed = run_example("keras_model.py", tmp_path, "--epochs", "4")
    assert "from_keras gives GRU(12, 32, batch_first=True, bidirectional=True)" in printed
    assert number(r"for 370 utterances: ([\d.]+)% right", printed) > 4 * CHANCE


@pytest.mark.slow
def test_the_example_of_a_cluster_outlives_what_it_kills(tmp_path):
    pytest.importorskip("ray", reason="the example runs on Ray")
    pytest.importorskip("safetensors", reason="the example writes a safetensors file")
    printed = run_example("ray_cluster.py", tmp_path)
    assert "2 workers and one process have trained the same." in printed
    assert number(r"([\d.]+)% of 370 utterances", printed) > 6 * CHANCE
    assert "370 streams by 2 replicas, of which one was killed: all outputs equal, bit for bit" in printed
