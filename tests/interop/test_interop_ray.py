"""Ray: datasets, applications and gradients, on a cluster of two nodes whose workers are killed while they work."""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import numba_pack as nbp

ray = pytest.importorskip("ray", reason="what is tested here runs on Ray")
pa = pytest.importorskip("pyarrow", reason="Ray Data holds Arrow's tables")

import pyarrow.parquet  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.serve.exceptions import BackPressureError  # noqa: E402

from numba_pack.interop import ray as interop  # noqa: E402
from numba_pack.interop._ray_infer import _as_column, _cuts  # noqa: E402
from numba_pack.interop._ray_serve import _Feed, _Sessions  # noqa: E402

K, H = 3, 5
#: seconds that anything may take; on a quiet machine all together takes less
DEADLINE = 120.0
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


@pytest.fixture(scope="module")
def cluster():
    """Two nodes that share this machine, with places for the two replicas and for four workers beside them."""
    node = {"num_cpus": 4, "object_store_memory": 150 << 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # or all that runs beside it comes first
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def gru():
    layer = nbp.GRU(K, H, rng=0)
    nbp.warmup(layer, training=True)  # here, so that workers find the compiled code
    return layer


@pytest.fixture(scope="module")
def lstm():
    layer = nbp.LSTM(K, H, num_layers=2, rng=1)
    nbp.warmup(layer)
    return layer


def rows(n, rng=0):
    return np.random.default_rng((n, rng)).standard_normal((n, K), np.float32)


def die_once(marker):
    """Kill this process as the system would, if it is the first that comes here."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


# -- datasets ----------------------------------------------------------------------------------------------------------

LENGTHS = [7, 0, 3, 12, 1, 5, 5, 2, 40, 3, 0, 8]
FORMS = ["Parquet", "tensors", "tensors of one shape", "symbols"]


def dataset_of(form, folder):
    """A dataset in several blocks, and its sequences."""
    if form == "Parquet":
        sequences = [rows(n, rng) for rng in range(5) for n in LENGTHS]
        for i in range(5):
            part = nbp.unpack_ragged(nbp.pack_sequence(sequences[12 * i : 12 * i + 12]), like="pyarrow")
            table = pa.table({"id": np.arange(12 * i, 12 * i + 12), "x": part})
            pyarrow.parquet.write_table(table, folder / f"{i}.parquet", row_group_size=5)
        return ray.data.read_parquet(str(folder), override_num_blocks=5), sequences
    lengths = [4] * 12 if form == "tensors of one shape" else LENGTHS
    sequences = [np.arange(n) % K if form == "symbols" else rows(n, i) for i, n in enumerate(lengths)]
    items = [{"id": i, "x": x.tolist() if form == "symbols" else x} for i, x in enumerate(sequences)]
    return ray.data.from_items(items, override_num_blocks=4), sequences


def columns(dataset):
    """The tables of a dataset as one."""
    return pa.concat_tables([table for table in ray.get(dataset.to_arrow_refs()) if table.num_rows])


def assert_outputs(column, layer, sequences):
    found = nbp.unpack_sequence(nbp.pack_ragged(column))
    assert [len(output) for output in found] == [len(x) for x in sequences]
    for output, x in zip(found, sequences, strict=True):
        np.testing.assert_array_equal(output, layer(x)[0])


def test_parts_have_as_many_sequences_as_the_rows_let_them():
    assert list(_cuts(np.array([3, 2, 5, 0, 9, 1, 0]), 5)) == [(0, 2), (2, 4), (4, 5), (5, 7)]
    assert list(_cuts(np.array([0, 0]), 1)) == [(0, 2)]
    assert list(_cuts(np.array([], int), 1)) == []


@pytest.mark.parametrize("outputs, error", [(np.ones(2), ValueError), (np.array(1.0), TypeError), ([1, 2], TypeError)])
def test_what_a_function_returns_must_have_an_entry_for_each_sequence(outputs, error):
    with pytest.raises(error, match="layer must return"):
        _as_column(outputs, 3)


@pytest.mark.parametrize("form", FORMS)
def test_each_sequence_of_a_dataset_has_the_output_that_it_has_alone(form, cluster, gru, tmp_path):
    dataset, sequences = dataset_of(form, tmp_path)
    table = columns(interop.infer(dataset, gru, "x", "y", workers=None if form == "symbols" else 2, rows=20))
    assert table.column_names == ["id", "x", "y"]
    assert table["id"].to_pylist() == list(range(len(sequences)))
    assert_outputs(table["y"], gru, sequences)


def test_a_worker_that_is_killed_leaves_no_gap_and_no_disorder(cluster, gru, tmp_path):
    dataset, sequences = dataset_of("Parquet", tmp_path)
    marker = str(tmp_path.parent / f"{tmp_path.name}-killed")

    def dying(packed):
        if len(packed.data) > 30:
            die_once(marker)
        return gru(packed)[0]

    table = columns(interop.infer(dataset, dying, "x", "y", workers=2))
    assert Path(marker).exists()
    assert table["id"].to_pylist() == list(range(len(sequences)))
    assert_outputs(table["y"], gru, sequences)


class Counted:
    """A model that notes in a file that it has come to a process, and every call."""

    def __init__(self, file):
        self.file = file

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.note("came")

    def note(self, what):
        with open(self.file, "a") as file:
            file.write(f"{os.getpid()} {what}\n")

    def __call__(self, packed):
        self.note("called")
        assert len(packed.data) <= 20 or len(packed.lengths) == 1
        return np.full((len(packed.lengths), 1), nbp.get_num_threads())


def test_a_model_comes_to_each_worker_once_and_computes_so_many_rows_at_a_time_with_the_workers_threads(
    cluster, tmp_path
):
    dataset, _ = dataset_of("Parquet", tmp_path)
    file = str(tmp_path.parent / f"{tmp_path.name}-calls")
    table = columns(interop.infer(dataset, Counted(file), "x", "threads", workers=2, num_cpus=1, rows=20))
    assert table["threads"].to_pylist() == [[1]] * 60
    noted = Counter(line.split()[1] for line in Path(file).read_text().splitlines())
    assert noted["came"] <= 2
    assert noted["called"] > 10


@pytest.mark.parametrize(
    "arguments, words",
    [
        pytest.param(("y", "z"), ("column must be one of", "'y'"), id="column that is not there"),
        pytest.param(("x", "id"), ("output must be none of", "'id'"), id="output that is there"),
        pytest.param(("id", "z"), ("column 'id'", "lists of numbers"), id="column of numbers"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_told_by_name(arguments, words, cluster, gru, tmp_path):
    dataset, _ = dataset_of("symbols", tmp_path)
    with pytest.raises(Exception) as caught:
        columns(interop.infer(dataset, gru, *arguments, workers=1))
    assert all(word in str(caught.value) for word in words)


def test_what_is_wrong_with_an_argument_is_told_at_once(cluster, gru):
    dataset = ray.data.range(1)
    for error, words, arguments, options in (
        (TypeError, "layer must be", (None, "id", "y"), {}),
        (TypeError, "column must be the name", (gru, 1, "y"), {}),
        (TypeError, "output must be the name", (gru, "id", None), {}),
        (ValueError, "output must be another", (gru, "id", "id"), {}),
        (ValueError, "workers must be at least 1", (gru, "id", "y"), {"workers": 0}),
        (TypeError, "num_cpus must be an integer", (gru, "id", "y"), {"num_cpus": 0.5}),
        (ValueError, "rows must be at least 1", (gru, "id", "y"), {"rows": 0}),
    ):
        with pytest.raises(error, match=words):
            interop.infer(dataset, *arguments, **options)


# -- the streams of a replica, without Ray -----------------------------------------------------------------------------


class Client:
    """What `Stream` does with the answers, with any of the replicas, over a network that loses what it likes."""

    def __init__(self, replicas):
        self.replicas = replicas
        self.number = self.done = 0
        self.state, self.outputs, self.sent = None, [], []

    def feed(self, chunk, replica, heard):
        """Ask for a chunk; whether its answer is heard or lost."""
        self.number += 1
        for state in (None, self.state):
            feed = _Feed("a", self.number, self.done, chunk, state, True)
            self.sent.append(feed)
            (answer,) = self.replicas[replica].answer([feed])
            if answer is not None:
                break
        if heard:
            output, self.state = answer
            self.outputs.append(output)
            self.done = self.number

    def ask_again(self, replica, heard):
        """The last question once more: the network has brought it twice."""
        if self.sent and self.sent[-1].number > self.done:
            (answer,) = self.replicas[replica].answer(self.sent[-1:])
            if heard and answer is not None:
                output, self.state = answer
                self.outputs.append(output)
                self.done = self.number
                return True
        return False


STEPS = st.lists(
    st.tuples(st.sampled_from(["feed", "again", "late", "forget", "other"]), st.integers(0, 1), st.booleans()),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_whatever_is_lost_doubled_late_or_forgotten_each_output_of_a_stream_comes_once_and_right(gru, steps):
    replicas = [_Sessions(gru, 2) for _ in range(2)]
    client, taken = Client(replicas), []
    for count, (what, replica, heard) in enumerate(steps):
        if what == "feed":
            chunk = rows(count % 4, count)
            client.feed(chunk, replica, heard)
            if heard:
                taken.append(chunk)
        elif what == "again" and client.ask_again(replica, heard):
            taken.append(client.sent[-1].rows)
        elif what == "late" and client.sent:
            replicas[replica].answer([client.sent[count % len(client.sent)]])
        elif what == "forget":
            replicas[replica].forget("a")
        elif what == "other":  # up to three streams have places for two
            replicas[replica].answer([_Feed(f"other {count % 2}", count + 1, 0, rows(2), None, False)])
    assert len(client.outputs) == len(taken)
    if taken:
        np.testing.assert_array_equal(np.concatenate(client.outputs), gru(np.concatenate(taken))[0])


def test_a_chunk_that_was_given_up_is_undone_without_a_state_from_elsewhere(gru):
    sessions, x = _Sessions(gru, 1), rows(9)

    def fed(number, after, chunk):
        return sessions.answer([_Feed("a", number, after, chunk, None, False)])[0]

    first, given_up, second = fed(1, 0, x[:4]), fed(2, 1, rows(7)), fed(3, 1, x[4:7])
    assert len(given_up[0]) == 7
    assert fed(2, 1, rows(7)) is None  # which comes late, and changes nothing
    third = fed(4, 3, x[7:])
    np.testing.assert_array_equal(np.concatenate([first[0], second[0], third[0]]), gru(x)[0])


def test_chunks_that_come_together_fail_alone_and_those_of_one_stream_are_taken_in_turn(gru):
    sessions, x = _Sessions(gru, 3), rows(6)
    feeds = [
        _Feed("a", 1, 0, x[:2], None, False),
        _Feed("b", 1, 0, x[:2, :1], None, False),
        _Feed("a", 1, 0, x[:2], None, False),
        _Feed("a", 2, 1, x[2:], None, False),
    ]
    first, wrong, again, second = sessions.answer(feeds)
    assert isinstance(wrong, ValueError)
    assert again is first
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), gru(x)[0])


# -- applications ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(cluster, lstm, tmp_path_factory):
    """Two replicas of a saved layer."""
    pytest.importorskip("safetensors", reason="the layer is in a file")
    path = tmp_path_factory.mktemp("served") / "lstm.safetensors"
    nbp.save(path, lstm)
    serve.start(proxy_location="Disabled")
    return interop.Service(serve.run(interop.application(path, num_replicas=2), name="lstm"))


def within_deadline(awaitable):
    return asyncio.run(asyncio.wait_for(awaitable, DEADLINE))


def kill(replica):
    actor = ray.get_actor(f"SERVE_REPLICA::lstm#numba_pack#{replica}", namespace="serve")
    ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError):
        while True:  # until it is dead
            ray.get(actor.__ray_ready__.remote(), timeout=DEADLINE)


async def on_both(service, resume=True):
    """Twelve streams of two replicas, of which one may have to start first."""
    while True:
        streams = [service.stream(resume) for _ in range(12)]
        await asyncio.gather(*(stream.feed(rows(0)) for stream in streams))
        if len({stream.replica for stream in streams}) == 2:
            return streams
        await asyncio.sleep(0.1)


class Blow:
    """Something that is done once, as soon as all streams are in the middle, and while they go on."""

    def __init__(self, streams, function):
        self.left, self.function = streams, function
        self.all_there, self.over = asyncio.Event(), asyncio.Event()

    async def __call__(self, chunks, middle, last):
        """What a stream waits for when so many chunks are answered, of those up to the last but one."""
        if chunks == middle:
            self.left -= 1
            if self.left:
                await self.all_there.wait()
            else:
                self.all_there.set()
                await asyncio.to_thread(self.function)
                self.over.set()
        if chunks == last:
            await self.over.wait()


async def fed(stream, x, cuts, after=None):
    """The outputs of a stream in chunks; ``after`` is called with the number of chunks that were answered."""
    outputs = []
    for i, chunk in enumerate(np.split(x, list(cuts))):
        outputs.append(await stream.feed(chunk))
        if after is not None:
            await after(i + 1)
    return np.concatenate(outputs)


def test_requests_and_streams_have_the_bits_that_they_have_alone_and_streams_stay_with_their_replica(service, lstm):
    async def main():
        streams = await on_both(service)
        seen = {stream.id: set() for stream in streams}

        async def one(i, stream):
            async def note(_):
                seen[stream.id].add(stream.replica)

            return await fed(stream, rows(40, i), [1, 2, 2, 17], note)

        whole = asyncio.gather(*(service.run(rows(n, 1)) for n in range(30)))
        outputs = await asyncio.gather(*(one(i, stream) for i, stream in enumerate(streams)))
        for stream in streams:
            await stream.close()
        return outputs, await whole, seen

    outputs, whole, seen = within_deadline(main())
    for i, output in enumerate(outputs):
        np.testing.assert_array_equal(output, lstm(rows(40, i))[0])
    for n, (output, (h, c)) in enumerate(whole):
        expected, (expected_h, expected_c) = lstm(rows(n, 1))
        for got, right in ((output, expected), (h, expected_h), (c, expected_c)):
            np.testing.assert_array_equal(got, right)
    assert all(len(replicas) == 1 for replicas in seen.values())
    assert len(set.union(*seen.values())) == 2


def test_when_a_replica_is_killed_no_answer_is_lost_or_doubled(service, lstm):
    async def main():
        streams = await on_both(service)
        before = [stream.replica for stream in streams]
        blow = Blow(len(streams), lambda: kill(before[0]))

        async def one(i, stream):
            outputs = await fed(stream, rows(60, i), range(3, 60, 3), lambda chunks: blow(chunks, 5, 18))
            return outputs, stream.replica

        async def client(i):
            return [await service.run(rows(n, i)) for n in range(20)]

        answers = asyncio.gather(*(client(i) for i in range(4)))
        outputs = await asyncio.gather(*(one(i, stream) for i, stream in enumerate(streams)))
        return before, outputs, await answers

    before, outputs, answers = within_deadline(main())
    for i, (output, replica) in enumerate(outputs):
        np.testing.assert_array_equal(output, lstm(rows(60, i))[0])
        assert replica == before[i] or before[i] == before[0]
    assert any(replica != before[i] for i, (_, replica) in enumerate(outputs))
    for i, of_client in enumerate(answers):
        for n, (output, _) in enumerate(of_client):
            np.testing.assert_array_equal(output, lstm(rows(n, i))[0])


def test_streams_that_are_not_to_resume_end_with_an_error_when_their_replica_is_killed_and_others_go_on(service, lstm):
    async def main():
        streams = await on_both(service, resume=False)
        first = await asyncio.gather(*(stream.feed(rows(9)[:4]) for stream in streams))
        victim = streams[0].replica

        async def rest(stream):
            if stream.replica != victim:
                return await stream.feed(rows(9)[4:])
            with pytest.raises(interop.StreamLost, match=stream.id):
                while True:  # it may answer until it is dead
                    await stream.feed(rows(0))
            return None

        kill(victim)
        return first, await asyncio.gather(*map(rest, streams))

    first, rest = within_deadline(main())
    assert None in rest
    for one, other in zip(first, rest, strict=True):
        if other is not None:
            np.testing.assert_array_equal(np.concatenate([one, other]), lstm(rows(9))[0])


def test_a_chunk_that_is_wrong_or_given_up_is_as_if_it_had_not_been_fed(service, lstm):
    async def main(resume):
        stream = service.stream(resume)
        first = await stream.feed(rows(9)[:4])
        with pytest.raises(ValueError, match="input_size"):
            await stream.feed(np.ones((2, K + 1), np.float32))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.feed(rows(200_000)), 0.05)
        second = await stream.feed(rows(9)[4:])
        await stream.close()
        with pytest.raises(RuntimeError, match="closed"):
            await stream.feed(rows(1))
        return np.concatenate([first, second])

    for resume in (False, True):
        np.testing.assert_array_equal(within_deadline(main(resume)), lstm(rows(9))[0])
    with pytest.raises(TypeError, match="sequence"):
        within_deadline(service.run(rows(3).astype("f8")))


class Front:
    """An application of a user's, with the layer's bound to it."""

    def __init__(self, handle):
        self.service = interop.Service(handle)

    async def streams(self, x, count):
        """The outputs of some streams, within one request."""
        streams = [self.service.stream(resume=False) for _ in range(count)]
        return await asyncio.gather(*(fed(stream, x, [1, 4]) for stream in streams))


def test_an_application_to_which_it_is_bound_asks_for_many_streams_at_once(cluster, gru):
    app = serve.deployment(Front).bind(interop.application(gru, num_replicas=2))
    handle = serve.run(app, name="front", route_prefix="/front")

    async def main():
        return await asyncio.gather(*(handle.streams.remote(rows(9, i), 10) for i in range(3)))

    for i, outputs in enumerate(within_deadline(main())):
        for output in outputs:
            np.testing.assert_array_equal(output, gru(rows(9, i))[0])
    serve.delete("front")


def test_more_requests_than_may_wait_are_refused_and_a_layer_of_both_directions_has_no_streams(cluster):
    layer = nbp.GRU(K, H, bidirectional=True, rng=0)
    app = interop.application(layer, capacity=1, max_queued_requests=1)
    service = interop.Service(serve.run(app, name="both", route_prefix="/both"))
    long = rows(100_000)

    async def main():
        answers = await asyncio.gather(*(service.run(long) for _ in range(8)), return_exceptions=True)
        with pytest.raises(ValueError, match="one direction"):
            await service.stream().feed(long)
        return answers

    answers = within_deadline(main())
    refused = [answer for answer in answers if isinstance(answer, BackPressureError)]
    answered = [answer[0] for answer in answers if isinstance(answer, tuple)]
    assert refused
    assert answered
    assert len(refused) + len(answered) == 8
    for output in answered:
        np.testing.assert_array_equal(output, layer(long)[0])
    serve.delete("both")


# -- training ----------------------------------------------------------------------------------------------------------


def loss_and_gradient_of(layer, before=lambda: None):
    def loss_and_gradient(parameters, piece):
        before()
        layer.parameters = parameters
        output, _, tape = layer.forward(piece)
        return (
            float((output.data**2).sum()),
            len(piece.data),
            layer.backward(tape, output.map(lambda h: 2 * h)).parameters,
        )

    return loss_and_gradient


def trained(total, layer, pieces, steps=5, between=lambda step: None):
    """Losses and parameters of some steps."""
    adam, losses, parameters = nbp.optim.Adam(lr=0.05), [], layer.parameters
    for step in range(steps):
        between(step)
        loss, count, gradient = total(parameters, pieces)
        losses.append(float(loss))
        parameters = adam.step(parameters, gradient / np.float32(count))
    return losses, parameters


@pytest.fixture(scope="module")
def pieces():
    rng = np.random.default_rng(0)
    return [nbp.pack_sequence([rows(int(n), i) for n in rng.integers(1, 30, 6)]) for i in range(8)]


@pytest.fixture(scope="module")
def alone(gru, pieces):
    """What this process computes, piece after piece."""
    function = loss_and_gradient_of(nbp.GRU(K, H, rng=0))

    def total(parameters, pieces):
        return [sum(values[1:], values[0]) for values in zip(*(function(parameters, piece) for piece in pieces),
                                                             strict=True)]  # fmt: skip

    return trained(total, gru, pieces)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_parameters_after_some_steps_are_the_same_for_any_number_of_workers(workers, cluster, gru, pieces, alone):
    parallel = interop.DataParallel(loss_and_gradient_of(nbp.GRU(K, H)), workers)
    losses, parameters = trained(parallel.sum, gru, pieces)
    assert losses == alone[0]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(parameters, alone[1])


def test_and_after_a_worker_was_killed_and_replaced(cluster, gru, pieces, alone, tmp_path):
    """One dies within a piece, at the first step; another between two steps."""
    marker = str(tmp_path / "killed")
    parallel = interop.DataParallel(loss_and_gradient_of(nbp.GRU(K, H), lambda: die_once(marker)), 2)

    def between(step):
        if step == 3:
            ray.kill(parallel.workers[1], no_restart=False)

    references = [ray.put(piece) for piece in pieces]
    losses, parameters = trained(parallel.sum, gru, references, between=between)
    assert Path(marker).exists()
    assert losses == alone[0]
    np.testing.assert_array_equal(parameters, alone[1])


def test_errors_of_a_function_come_here_and_what_cannot_be_added_is_refused(cluster):
    def function(shared, piece):
        if piece == "unknown":
            raise KeyError("no such piece")
        return [shared] if piece == "list" else (shared, np.ones(piece, int))

    parallel = interop.DataParallel(function, 1)
    with pytest.raises(KeyError, match="no such piece"):
        parallel.sum(0.5, [2, "unknown"])
    with pytest.raises(TypeError, match="function must return a tuple"):
        parallel.sum(0.5, ["list"])
    with pytest.raises(ValueError, match="function must return for all pieces"):
        parallel.sum(0.5, [2, 3])
    with pytest.raises(ValueError, match="pieces must be at least one"):
        parallel.sum(0.5, [])
    total, ones = parallel.sum(0.5, [2, 2, 2])
    assert (total, ones.tolist()) == (1.5, [3, 3])


def test_a_worker_has_as_many_threads_as_cpus(cluster):
    parallel = interop.DataParallel(lambda shared, piece: (nbp.get_num_threads(),), 1, num_cpus=2)
    assert parallel.sum(None, [0]) == (2,)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_when_a_node_is_lost_its_streams_go_on_and_its_sums_are_computed(service, cluster, lstm, gru, pieces, alone):
    """The last test: what is left is one node."""
    (node,) = cluster.worker_nodes

    async def main():
        streams = await on_both(service)
        blow = Blow(len(streams), lambda: cluster.remove_node(node, allow_graceful=False))
        return await asyncio.gather(
            *(fed(stream, rows(50, i), range(10, 50, 10), lambda chunks: blow(chunks, 2, 4))
              for i, stream in enumerate(streams))
        )  # fmt: skip

    parallel = interop.DataParallel(loss_and_gradient_of(nbp.GRU(K, H)), 2)
    losses, _ = trained(parallel.sum, gru, pieces, steps=1)
    for i, output in enumerate(within_deadline(main())):
        np.testing.assert_array_equal(output, lstm(rows(50, i))[0])
    losses, parameters = trained(parallel.sum, gru, pieces)
    assert losses == alone[0]
    np.testing.assert_array_equal(parameters, alone[1])
