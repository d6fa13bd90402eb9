"""Two replicas of a Ray Serve application on two cores, against one.

    python -m bench.compare.ray_replicas        three minutes
    python -m bench.compare.ray_replicas --seconds 2 --rounds 2

Closed loop: each of some clients, all in this process, asks for the answer to a sequence, waits for it, and asks for
the next one. Lengths are log-normal, with the median at 3000 steps of eight layers: a request takes a replica a tenth
of a second, and this process one or two milliseconds, so that it is not what is measured. Each replica has one CPU and
computes with one thread. The two applications are there all the time and asked in turns, round after round. Before the
clock starts, the answers of both are compared, bit for bit, with those of the layer here.

It needs a machine that is quiet, since Ray's own processes and this one take their part of the two cores.
"""

import argparse
import asyncio
from itertools import cycle
from time import perf_counter, process_time

from bench.tools.environment import prepare

PERCENTS = (50, 90, 99)


async def load_of(service, clients, sequences, seconds):
    """The seconds of each request that clients made, in a closed loop; and the rows of all.

    What is answered before half the time has passed is not counted: until then the first requests come all at once. Nor
    is what is answered after the end, when there are fewer and fewer.
    """
    import numpy as np

    start, found, rows = perf_counter() + seconds / 2, [], []
    end = start + seconds

    async def client(seed):
        chosen = cycle(np.random.default_rng(seed).permutation(len(sequences)).tolist())
        while (began := perf_counter()) < end:
            x = sequences[next(chosen)]
            await service.run(x)
            if start <= (now := perf_counter()) <= end:
                found.append(now - began)
                rows.append(len(x))

    await asyncio.gather(*map(client, range(clients)))
    return found, sum(rows)


async def measure(services, layer, sequences, arguments):
    """Of each service and round: requests and rows a second, work of this process, and percentiles of a request."""
    import numpy as np
    from tqdm import tqdm

    for service in services.values():
        for x, (output, _) in zip(sequences, await asyncio.gather(*map(service.run, sequences)), strict=True):
            np.testing.assert_array_equal(output, layer(x)[0])
    rounds = {name: [] for name in services}
    for _ in tqdm(range(arguments.rounds), f"{arguments.clients} clients"):
        for name, service in services.items():
            began, worked = perf_counter(), process_time()
            found, rows = await load_of(service, arguments.clients, sequences, arguments.seconds)
            spent, worked = perf_counter() - began, process_time() - worked
            times = 1e3 * np.percentile(found, PERCENTS)
            a_second = np.array([len(found), rows]) / arguments.seconds
            rounds[name].append([*a_second, 100 * worked / spent, *times])
    return {name: np.array(values) for name, values in rounds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--hidden-size", type=int, default=256, help="H (default: %(default)s)")
    parser.add_argument("--num-layers", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of a load, each round (default: %(default)s)")
    arguments = parser.parse_args()
    prepare()
    import numpy as np
    import ray
    from ray import serve

    import numba_pack as nbp
    from bench.tools.environment import machine, versions
    from bench.tools.markdown import of_machine, of_versions, table
    from numba_pack.interop.ray import Service, application

    rng, columns = np.random.default_rng(0), 32
    lengths = np.clip(rng.lognormal(np.log(3000), 0.5, 64).round().astype(int), 100, 20_000)
    sequences = [rng.standard_normal((n, columns), np.float32) for n in lengths]
    layer = nbp.LSTM(columns, arguments.hidden_size, num_layers=arguments.num_layers, rng=0)
    ray.init("local", num_cpus=3, object_store_memory=1 << 30, include_dashboard=False, log_to_driver=False)
    serve.start(proxy_location="Disabled")
    services = {
        name: Service(serve.run(application(layer, replicas), name=name, route_prefix=None))
        for replicas, name in ((1, "one replica"), (2, "two replicas"))
    }
    rounds = asyncio.run(measure(services, layer, sequences, arguments))
    serve.shutdown()
    ray.shutdown()

    one, two = (values[:, 1] for values in rounds.values())
    head = ["", "requests/s", "rows/s", "this process, % of a core", *(f"{percent} %, ms" for percent in PERCENTS)]
    rows = [[name, *(f"{value:.1f}" for value in np.median(values, axis=0))] for name, values in rounds.items()]
    print(f"{of_machine(machine())}\n\n{of_versions(versions())}\n")
    print(f"{layer!r}, {arguments.clients} clients: medians of {arguments.rounds} rounds of {arguments.seconds:g} s.\n")
    print(table(head, rows))
    print(f"\nTwo replicas over one: {np.median(two / one):.2f}, best round {(two / one).max():.2f} (wanted: 1.8)")


if __name__ == "__main__":
    main()
