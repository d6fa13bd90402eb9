"""Balance a pole whose speed is not seen: a recurrent actor-critic, trained with this library alone.

A cart is pushed left or right, and has to keep the pole on it upright: gymnasium's CartPole, written out below for many
at once. But what is seen is where cart and pole are, and not how fast they move, which only a memory can tell. Episodes
end when the pole falls, and then the next one begins in its place. So sequences begin anew in their midst, wherever
that happens: ``resets=begins`` cuts them there, and no state, and no gradient, leaks from one episode into the next.

The net is trained by proximal policy optimisation, until the poles stay up, and then a second time without a memory,
which is a reset before every step. The figure shows the returns of both.

    python examples/actor_critic.py
    python examples/actor_critic.py --updates 3
"""

import argparse

import numpy as np
from tqdm import tqdm

import numba_pack as nbp

LONGEST = 200  # steps of an episode, each of which returns 1
REWARD = 0.05  # what that is to the critic, whose values are about 1 then
SOLVED = 190  # mean return of the last episodes
DISCOUNT, SMOOTHING = 0.99, 0.95  # of rewards, and of advantages (gamma and lambda)
EPOCHS, CLIP, ENTROPY = 4, 0.2, 0.01


def main():
    arguments = parse_arguments()
    curves = {}
    for name, memory in (("with memory", True), ("without: reset before every step", False)):
        curves[name] = train(name, memory, arguments)
        print(f"{name}: mean return {curves[name][-1]:.0f} of {LONGEST} after {len(curves[name])} updates")
    draw(curves, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=120, help="at most, for each net (default: %(default)s)")
    parser.add_argument("--poles", type=int, default=64, help="at once (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=64, help="of each, for one update (default: %(default)s)")
    parser.add_argument("--units", type=int, default=32, help="of the GRU (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of parameters, poles and pushes (default: %(default)s)")
    parser.add_argument("--output", default="actor_critic.png", help="the figure (default: %(default)s)")
    return parser.parse_args()


class Poles:
    """Carts with a pole each (A. G. Barto, R. S. Sutton, C. W. Anderson, 1983), with the numbers of CartPole-v0."""

    def __init__(self, count, rng):
        self.rng, self.states, self.ages = rng, np.empty((count, 4)), np.zeros(count, int)
        self._begin(np.full(count, True))

    def _begin(self, which):
        self.states[which] = self.rng.uniform(-0.05, 0.05, (which.sum(), 4))
        self.ages[which] = 0

    def seen(self):
        """Where cart and pole are, (count, 2), each about 1 where an episode ends."""
        return (self.states[:, [0, 2]] / (2.4, 0.21)).astype(np.float32)

    def push(self, right):
        """One step; returns which poles have fallen, which are at the end of their time, and the returns of both.

        In their places the next episodes begin.
        """
        _, x_speed, angle, angle_speed = self.states.T
        sine, cosine = np.sin(angle), np.cos(angle)
        push = (np.where(right, 10.0, -10.0) + 0.05 * angle_speed**2 * sine) / 1.1
        angle_speeds_up = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        x_speeds_up = push - 0.05 * angle_speeds_up * cosine / 1.1
        self.states += 0.02 * np.stack([x_speed, x_speeds_up, angle_speed, angle_speeds_up], axis=1)
        self.ages += 1
        fallen = (abs(self.states[:, 0]) > 2.4) | (abs(self.states[:, 2]) > np.radians(12))
        late = (self.ages >= LONGEST) & ~fallen
        returns = self.ages[fallen | late]
        self._begin(fallen | late)
        return fallen, late, returns


class Rollout:
    """Some steps of all poles, (T, B, ...), and the state that they began with."""

    def __init__(self, T, B, h_0):
        self.h_0, self.seen = h_0, np.empty((T, B, 2), np.float32)
        self.begins, self.fallen, self.late = np.empty((3, T, B), bool)
        self.right, self.log_p, self.values = np.empty((T, B), int), np.empty((T, B)), np.empty((T + 1, B))

    def advantages(self):
        """How much better than the critic said it went on from each step (J. Schulman et al., 2016)."""
        after = np.where(self.late, self.values[:-1], self.values[1:])  # what would have come is as good as what was
        surprise = REWARD + DISCOUNT * after * ~self.fallen - self.values[:-1]
        found, ahead = np.empty_like(surprise), 0.0
        for t in reversed(range(len(found))):
            found[t] = ahead = surprise[t] + DISCOUNT * SMOOTHING * ahead * ~(self.fallen[t] | self.late[t])
        return found


def train(name, memory, arguments):
    """The mean return of the last 100 episodes after each update."""
    rng = np.random.default_rng(arguments.seed)
    model = nbp.Model(
        gru=nbp.GRU(2, arguments.units, rng=rng),
        actor=nbp.Linear(arguments.units, 2, rng=rng),
        critic=nbp.Linear(arguments.units, 1, rng=rng),
    )
    adam, poles, curve, returns = nbp.optim.Adam(lr=5e-3), Poles(arguments.poles, rng), [], []
    h, begins = np.zeros((1, arguments.poles, arguments.units), np.float32), np.full(arguments.poles, True)
    with tqdm(total=arguments.updates, unit="update", desc=name) as bar:
        while len(curve) < arguments.updates and (not curve or curve[-1] < SOLVED):
            rollout = Rollout(arguments.steps, arguments.poles, h)
            for t in range(arguments.steps):
                rollout.seen[t], rollout.begins[t] = poles.seen(), begins | (not memory)
                logits, values, h = act(model, rollout.seen[t], h, rollout.begins[t])
                log_p = logits - np.logaddexp(*logits.T)[:, None]
                right = rng.random(arguments.poles) < np.exp(log_p[:, 1])
                rollout.right[t], rollout.values[t] = right, values
                rollout.log_p[t] = np.where(right, *log_p.T[::-1])
                rollout.fallen[t], rollout.late[t], new = poles.push(right)
                begins = rollout.fallen[t] | rollout.late[t]
                returns = [*returns, *new][-100:]
            rollout.values[-1] = act(model, poles.seen(), h, begins | (not memory))[1]
            learn(model, adam, rollout)
            curve.append(np.mean(returns) if returns else arguments.steps)
            bar.set_postfix(mean_return=f"{curve[-1]:.0f}")
            bar.update()
    return curve


def act(model, seen, h, begins):
    """Logits (B, 2), values (B,) and the next state of one step."""
    outputs, h = model.gru(seen[None], h, resets=begins[None])
    return model.actor(outputs)[0].astype(float), model.critic(outputs)[0, :, 0], h


def learn(model, adam, rollout):
    """Some steps of proximal policy optimisation (J. Schulman et al., 2017) on one rollout."""
    advantages = rollout.advantages()
    wanted = (advantages + rollout.values[:-1])[..., None].astype(np.float32)
    advantages = ((advantages - advantages.mean()) / (advantages.std() + 1e-8))[..., None]
    chosen, count = np.eye(2)[rollout.right], rollout.right.size
    for _ in range(EPOCHS):
        outputs, _, scanned = model.gru.forward(rollout.seen, rollout.h_0, resets=rollout.begins)
        logits, of_actor = model.actor.forward(outputs)
        values, of_critic = model.critic.forward(outputs)
        log_p = logits - np.logaddexp(logits[..., :1], logits[..., 1:]).astype(float)
        p, entropy = np.exp(log_p), -(np.exp(log_p) * log_p).sum(-1, keepdims=True)
        ratio = np.exp((log_p * chosen).sum(-1) - rollout.log_p)[..., None]
        counts = np.where(advantages > 0, ratio < 1 + CLIP, ratio > 1 - CLIP)
        d_logits = -(advantages * ratio * counts) * (chosen - p) + ENTROPY * p * (log_p + entropy)
        _, d_values = nbp.losses.mse(values, wanted)
        actor = model.actor.backward(of_actor, (d_logits / count).astype(np.float32))
        critic = model.critic.backward(of_critic, d_values)
        gru = model.gru.backward(scanned, actor.input + critic.input, input_grad=False)
        gradient = model.gradient(gru=gru, actor=actor, critic=critic)
        gradient, _ = nbp.optim.clip_grad_norm(gradient, 0.5, out=gradient)
        model.parameters = adam.step(model.parameters, gradient)


def draw(curves, arguments):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, curve in curves.items():
        axes.plot(np.arange(1, len(curve) + 1) * arguments.poles * arguments.steps, curve, label=name)
    axes.axhline(SOLVED, color="0.7", linestyle="--", label="solved")
    axes.set(xlabel="steps of all poles", ylabel="mean return of the last 100 episodes", ylim=(0, LONGEST))
    axes.set_title("Balancing poles without seeing their speed")
    axes.legend(loc="center right")
    figure.savefig(arguments.output, dpi=150)
    print(f"The returns are in {arguments.output}")


if __name__ == "__main__":
    main()
