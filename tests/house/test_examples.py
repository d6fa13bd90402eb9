"""The examples run as their docstrings say, and do what they are there to show."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import numba_pack as nbp

ROOT = Path(__file__).resolve().parents[2]
CHANCE = 100 / 9  # per cent: nine speakers


def run_example(name, folder, *options):
    """What an example prints, run in a folder of its own. It shares the Numba cache of the tests."""
    environ = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name), *options]
    run = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def number(pattern, text):
    """The number at the one group of a pattern."""
    found = re.search(pattern, text, flags=re.MULTILINE)
    assert found, f"{pattern!r} is not in what was printed:\n{text}"
    return float(found[1])


def assert_is_a_figure(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


def test_the_packing_example_counts_64_rows_against_45_and_draws_them(tmp_path):
    printed = run_example("packing.py", tmp_path, "--output", "figure.png")
    assert re.search(r"rows\s+64\s+45\b", printed)
    assert_is_a_figure(tmp_path / "figure.png")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="bidirectional LSTM"),
        pytest.param(("--cell", "gru", "--unidirectional"), id="GRU", marks=pytest.mark.slow),
        pytest.param(("--cell", "rnn"), id="bidirectional RNN", marks=pytest.mark.slow),
    ],
)
def test_the_vowels_example_learns_to_tell_speakers_apart(options, tmp_path):
    printed = run_example("japanese_vowels.py", tmp_path, "--epochs", "15", "--output", "figure.png", *options)
    assert number(r"Test accuracy after 15 epochs: ([\d.]+)%", printed) > 6 * CHANCE
    assert number(r"packed input: (\d+) rows, [\d.]+ ms", printed) == 4274
    padded = int(number(r"padded input: (\d+) rows, [\d.]+ ms", printed))
    assert 4274 < padded < 7020  # batch by batch, to less than the 26 frames of the longest
    assert re.search(rf"rows\s+{padded:,}\s+4,274\b", printed)  # what was reported before is what was timed
    assert number(r"saved +([\d.]+)%", printed) == round(100 * (1 - 4274 / padded), 1)
    assert printed.index("is compiled") < printed.index("Test accuracy")
    assert_is_a_figure(tmp_path / "figure.png")


def test_the_vowels_example_counts_all_gates_in_all_directions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    vowels, data = importlib.import_module("japanese_vowels"), SimpleNamespace(lengths=np.array([2, 5, 1]))
    layer = nbp.GRU(3, 4, bidirectional=True)
    padded, packed = 5 + 2 * 2, 8
    products = sum(value.size for name, value in layer.state_dict().items() if name.startswith("weight"))
    report = vowels.report_of(layer, data, [[1], [0, 2]])
    assert report == (padded, packed, *(rows * products for rows in (padded, packed) * 2), 1 - packed / padded)


@pytest.mark.slow
def test_the_vowels_example_gives_the_same_for_the_same_seed(tmp_path):
    def accuracy(seed):
        options = ("--hidden-size", "16", "--epochs", "3", "--unidirectional", "--seed", seed)
        return number(r"Test accuracy after 3 epochs: ([\d.]+)%", run_example("japanese_vowels.py", tmp_path, *options))

    assert accuracy("1") == accuracy("1")


def test_a_cell_of_ones_own_learns_to_tell_speakers_apart(tmp_path):
    printed = run_example("own_cell.py", tmp_path, "--epochs", "15", "--output", "figure.png")
    assert "    h' = o' * tanh(c')\ngradient\n" in printed
    assert "\n    d_leak = " in printed
    for name in ("LeakyLSTM", "LSTM"):
        assert number(rf"^{name}: test accuracy after 15 epochs: ([\d.]+)%", printed) > 6 * CHANCE
    assert number(r"memory of ([\d.]+) steps", printed) < number(r"memory of .* to ([\d.]+)\n", printed)
    assert_is_a_figure(tmp_path / "figure.png")


def test_the_picture_of_the_house_is_of_the_modules_that_there_are(tmp_path):
    """If it is not: python examples/house.py --output examples/house.svg."""
    run_example("house.py", tmp_path, "--output", "house.svg")
    drawn, kept = (path.read_text(encoding="utf-8") for path in (tmp_path / "house.svg", ROOT / "examples/house.svg"))
    assert words_of(drawn) == words_of(kept)
    assert arcs_of(drawn) == arcs_of(kept)
    assert {"cpu-simd", "layers-cuda", "cuda-cells"} <= arcs_of(drawn)


def words_of(svg):
    return re.findall(r"[\w ,]+(?=</text>)", svg)


def arcs_of(svg):
    return set(re.findall(r'id="(\w+-\w+)"', svg))


def test_the_scipy_example_minimises_the_loss_and_generalises(tmp_path):
    printed = run_example("scipy_minimize.py", tmp_path, "--iterations", "40")
    assert number(r"loss with penalty ([\d.]+)", printed) < 0.1  # log(9) = 2.2 by guessing
    assert number(r"Test accuracy: ([\d.]+)%", printed) > 7 * CHANCE


def test_the_service_example_answers_both_ways_with_the_bits_of_each_request_alone(tmp_path):
    printed = run_example("service.py", tmp_path, "--seconds", "0.5", "--hidden-size", "40")
    answers = [int(count) for count in re.findall(r"All (\d+) answers equal, bit for bit", printed)]
    assert len(answers) == 2
    assert min(answers) >= 4  # at least one for each client
    for way in ("alone", "batched"):
        assert number(rf"{way} +(\d+)", printed) > 0


SERVED = r"([\d.]+)% of 26753 test frames are tagged right"


def test_the_tagger_of_pytorch_is_served_without_pytorch(tmp_path):
    pytest.importorskip("safetensors", reason="the example reads a safetensors file")
    printed = run_example("torch_tagger/serve.py", tmp_path)
    assert number(SERVED, printed) > 90
    assert "PyTorch was not imported." in printed


def test_the_tagging_example_learns_and_goes_on_where_it_was_interrupted(tmp_path):
    pytest.importorskip("safetensors", reason="the example writes a safetensors file")
    pattern = r"([\d.]+)% of 8971 words in 500 sentences"
    run_example("tagging.py", tmp_path, "--epochs", "1", "--output", "first")
    resumed = number(pattern, run_example("tagging.py", tmp_path, "--epochs", "3", "--output", "first", "--resume"))
    printed = run_example("tagging.py", tmp_path, "--epochs", "3", "--output", "whole")
    assert number(pattern, printed) == resumed > 95
    assert (tmp_path / "first").read_bytes() == (tmp_path / "whole").read_bytes()
    assert "man/NOUN saw/VERB the/DET second/ADJ saw/NOUN" in printed


def test_the_reading_example_finds_digits_that_nobody_laid_out(tmp_path):
    printed = run_example("reading.py", tmp_path)
    assert number(r"([\d.]+)% of the digits of 300 lines are wrong", printed) < 6
    assert re.search(r"^\d+ was read as \d+$", printed, flags=re.MULTILINE)


def test_the_example_of_numbers_in_words_learns_to_look_where_they_are(tmp_path):
    printed = run_example("seq2seq.py", tmp_path, "--epochs", "10", "--output", "figure.png")
    pattern = r"([\d.]+)% of 500 other numbers are right, "
    assert min(number(pattern + how, printed) for how in ("greedy", "beam of 4")) > 80
    assert re.search(r"^dreihundertvierundzwanzig = \d+$", printed, flags=re.MULTILINE)
    assert_is_a_figure(tmp_path / "figure.png")


def test_a_beam_that_keeps_all_finds_the_likeliest_answer():
    path = ROOT / "examples" / "seq2seq.py"
    spec = importlib.util.spec_from_file_location("seq2seq", path)
    seq2seq = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seq2seq)
    seq2seq.LONGEST, STOP = 3, seq2seq.STOP  # digits of an answer: none, one or two
    model, texts = seq2seq.net(np.random.default_rng(0)), ["null", "one hundred", "zwölf"]
    model.parameters = 3 * model.parameters  # which is then of some opinion
    candidates = ["", *(f"{n}" for n in range(10)), *(f"{n:02}" for n in range(100))]

    def likelihoods(text):
        h, h_n = seq2seq.encoded(model, [text] * len(candidates))
        digits = [list(map(int, candidate)) for candidate in candidates]
        s, _ = model.decoder(nbp.pack_sequence([np.array([STOP, *each]) for each in digits]), seq2seq.first_state(h_n))
        context, _ = nbp.attend(s, h, h)
        logits = model.linear(s.map(lambda rows: np.hstack([rows, context.data])))
        wanted = nbp.pack_sequence([np.array([*each, STOP]) for each in digits])
        losses, _ = nbp.losses.softmax_cross_entropy(logits, wanted, reduction="none")
        return -nbp.sum_by_sequence(losses)

    best = [candidates[likelihoods(text).argmax()] for text in texts]
    assert seq2seq.answers(model, texts, seq2seq.SYMBOLS**2) == best
    assert [seq2seq.answers(model, [text], 4)[0] for text in texts] == seq2seq.answers(model, texts, 4)


def test_the_awkward_example_gives_back_what_awkward_can_use(tmp_path):
    pytest.importorskip("awkward", reason="the example is about Awkward arrays")
    pytest.importorskip("safetensors", reason="the example reads a safetensors file")
    printed = run_example("awkward_arrays.py", tmp_path)
    assert "in:  370 * var * 12 * float32" in printed
    assert "out: 370 * var * 9 * float32" in printed
    assert number(r"from an utterance: ([\d.]+)% right", printed) > 90


def test_the_example_of_a_session_finds_the_same_as_onnx_runtime(tmp_path):
    pytest.importorskip("onnx", reason="the example makes an ONNX file")
    pytest.importorskip("onnxruntime", reason="the example runs it in ONNX Runtime")
    printed = run_example("onnx_session.py", tmp_path, "--frames", "200")
    assert "run here: lstm_8k, lstm_16k; left to ONNX Runtime: none" in printed
    assert number(r"Both find the same in 200 frames, ([\d.]+)% right", printed) > 80
    assert number(r"with numba_pack +([\d.]+) ms", printed) > 0


def test_the_onnx_example_answers_ragged_requests_and_counts_the_rows_it_saves(tmp_path):
    pytest.importorskip("onnx", reason="the example writes and reads an ONNX file")
    printed = run_example("onnx_requests.py", tmp_path, "--requests", "5", "--hidden-size", "24")
    assert re.search(r"node l1: GRU\(48, 24, bidirectional=True\)", printed)
    assert number(r"([\d.]+)% of 370 speakers are told right", printed) > 6 * CHANCE
    assert 5 < number(r"packed [\d,]+: (\d+)% of the rows saved", printed) < 60
    assert "bit for bit" in printed
    assert number(r"numba_pack, packed +([\d.]+) ms", printed) > 0
    if importlib.util.find_spec("onnxruntime"):
        assert number(r"ONNX Runtime, padded +([\d.]+) ms", printed) > 0


@pytest.mark.parametrize("updates", [3, pytest.param(70, marks=pytest.mark.slow)])
def test_the_actor_critic_learns_what_only_a_memory_can(updates, tmp_path):
    printed = run_example("actor_critic.py", tmp_path, "--updates", str(updates), "--output", "figure.png")
    returns = [number(rf"^{name}.*: mean return (\d+) of 200", printed) for name in ("with memory", "without")]
    if updates > 3:
        assert returns[0] > 120 and returns[1] < 80
    assert_is_a_figure(tmp_path / "figure.png")
