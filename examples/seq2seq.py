"""Read numbers out of words, in English and in German: an encoder, a decoder, and attention between packed rows.

"three hundred and twenty-four" becomes 324, and so does "dreihundertvierundzwanzig", where the 4 comes before the 20:
the decoder has to look now here, now there. It is trained on all steps at once, as a layer over the digits that came
before, and answers step by step, as a cell that takes the last digit. Nothing is padded: attention goes from the packed
rows of digits to the packed rows of letters, also where a beam search keeps a few beginnings of each answer, and none
of what is finished.

    python examples/seq2seq.py
    python examples/seq2seq.py --beam 8 --seed 1
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import numba_pack as nbp

ENGLISH, GERMAN = (
    words.split()
    for words in (
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety""",
        """null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn
        siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig""",
    )
)
LETTERS = sorted(set("".join(ENGLISH + GERMAN) + "thousand and hundred-"))
STOP, SYMBOLS = 10, 11  # no digit: what comes before the first one, and after the last
UNITS, LONGEST = 64, 8  # of each direction of the encoder; digits of the longest answer that is waited for


def main():
    arguments = parse_arguments()
    rng = np.random.default_rng(arguments.seed)
    numbers = [int(10 ** rng.uniform(0, 6)) for _ in range(7000)]
    pairs = list({rng.choice([english, german])(number): number for number in numbers}.items())
    known, watched, test = pairs[:3000], pairs[3000:3500], pairs[3500:4000]
    batches = nbp.data.Batches(*zip(*map(example, known), strict=True), rows=1200, seed=arguments.seed)
    model = net(rng)
    print(f"{len(known)} numbers to learn from. The first batch compiles what is not cached yet.")
    adam, best, since, parameters = nbp.optim.Adam(lr=3e-3), -1.0, 0, model.parameters
    with tqdm(total=arguments.epochs, unit="epoch") as bar:
        while batches.epoch < arguments.epochs and since < arguments.patience:
            losses = [step(model, adam, *batch) for batch in batches]
            right = share(model, watched, 1)
            since = 0 if right > best else since + 1
            if right > best:
                best, parameters = right, model.parameters
            bar.set_postfix(loss=f"{np.mean(losses):.3f}", right=f"{right:.1%}")
            bar.update()

    model.parameters = parameters
    for name, width in (("greedy", 1), (f"beam of {arguments.beam}", arguments.beam)):
        print(f"{share(model, test, width):.1%} of {len(test)} other numbers are right, {name}")
    shown = [english(324), german(324), german(65_071), *(text for text, _ in test[:4])]
    for text, found in zip(shown, answers(model, shown, arguments.beam), strict=True):
        print(f"{text} = {found}")
    draw(model, [*shown[:2], german(987_654)], arguments.output)
    print(f"Where the decoder looked: {arguments.output}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40, help="at most (default: %(default)s)")
    parser.add_argument("--patience", type=int, default=6, help="epochs without a better one (default: %(default)s)")
    parser.add_argument("--beam", type=int, default=4, help="beginnings that are kept (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of numbers, parameters, batches (default: %(default)s)")
    parser.add_argument("--output", default="attention.png", help="where the figure goes (default: %(default)s)")
    return parser.parse_args()


# -- data --------------------------------------------------------------------------------------------------------------


def english(number):
    high, rest = divmod(number, 1000)
    if high:
        return f"{english(high)} thousand" + (f" {english(rest)}" if rest else "")
    high, rest = divmod(number, 100)
    if high:
        return f"{ENGLISH[high]} hundred" + (f" and {english(rest)}" if rest else "")
    tens, ones = divmod(number, 10)
    return ENGLISH[number] if number < 20 else ENGLISH[18 + tens] + (f"-{ENGLISH[ones]}" if ones else "")


def german(number):
    for size, name in ((1000, "tausend"), (100, "hundert")):
        high, rest = divmod(number, size)
        if high:
            return before(german(high)) + name + (german(rest) if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return GERMAN[number]
    return (before(GERMAN[ones]) + "und" if ones else "") + GERMAN[18 + tens]


def before(text):
    """One, before another word, is "ein"."""
    return text[:-1] if text.endswith("eins") else text


def letters(text):
    return np.array([LETTERS.index(letter) for letter in text])


def example(pair):
    """Letters, the symbol before each digit, and that digit; so for the stop behind them."""
    digits = list(map(int, str(pair[1])))
    return letters(pair[0]), np.array([STOP, *digits]), np.array([*digits, STOP])


# -- training ----------------------------------------------------------------------------------------------------------


def net(rng):
    return nbp.Model(
        embedding=nbp.Embedding(len(LETTERS), 16, rng=rng),
        encoder=nbp.GRU(16, UNITS, bidirectional=True, rng=rng),
        decoder=nbp.GRU(SYMBOLS, 2 * UNITS, rng=rng),
        linear=nbp.Linear(4 * UNITS, SYMBOLS, rng=rng),
    )


def step(model, adam, text, given, wanted):
    """Train on a batch, on all steps of the decoder at once; return its loss."""
    x, looked_up = model.embedding.forward(text)
    h, h_n, scanned = model.encoder.forward(x)
    s, _, decoded = model.decoder.forward(given, first_state(h_n))
    context, weights = nbp.attend(s, h, h)
    logits, multiplied = model.linear.forward(s.map(lambda rows: np.hstack([rows, context.data])))
    loss, d_logits = nbp.losses.softmax_cross_entropy(logits, wanted)

    linear = model.linear.backward(multiplied, d_logits)
    d_s, d_context = np.split(linear.input.data, 2, axis=1)
    d_queries, d_keys, d_values = nbp.attend_backward(s, h, h, weights, d_context)
    decoder = model.decoder.backward(decoded, d_s + d_queries.data)
    d_h_n = np.stack(np.split(decoder.hx[0], 2, axis=1))
    encoder = model.encoder.backward(scanned, d_keys.data + d_values.data, d_h_n)
    embedding = model.embedding.backward(looked_up, encoder.input)
    gradient = model.gradient(embedding=embedding, encoder=encoder, decoder=decoder, linear=linear)
    gradient, _ = nbp.optim.clip_grad_norm(gradient, 1.0, out=gradient)
    model.parameters = adam.step(model.parameters, gradient)
    return loss


def first_state(h_n):
    """What the decoder begins with: the last states of both directions of the encoder, side by side."""
    return np.hstack(h_n)[None]


# -- answers -----------------------------------------------------------------------------------------------------------


def encoded(model, texts):
    folded = nbp.fold_embedding(model.encoder, model.embedding.weight)  # for inference: takes letters themselves
    return folded(nbp.pack_sequence([letters(text) for text in texts]))


def answers(model, texts, width):
    """The likeliest digits of each text, as a string, of ``width`` beginnings that are kept; greedy if that is 1.

    All beginnings of all texts are rows side by side, those of a text together. They are one sequence of queries for
    each text, and none for a text that is finished.
    """
    h, h_n = encoded(model, texts)
    cell = nbp.GRUCell(SYMBOLS, 2 * UNITS)  # one step of the decoder
    cell.parameters = model.decoder.parameters
    of, state, symbols = np.arange(len(texts)), first_state(h_n)[0], np.full(len(texts), STOP)
    scores, digits = np.zeros(len(texts)), [""] * len(texts)
    found, best = [""] * len(texts), np.full(len(texts), -np.inf)
    for _ in range(LONGEST):
        state = cell(symbols, state)
        ends = np.searchsorted(of, np.arange(len(texts) + 1))
        context = nbp.unpack_ragged(nbp.attend(nbp.pack_ragged(state, ends), h, h)[0])[0]
        logits = model.linear(np.hstack([state, context]))
        total = scores[:, None] + logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        order = np.lexsort((-total.ravel(), of.repeat(SYMBOLS)))  # text by text, the best first
        place = np.arange(len(order)) - (ends[:-1] * SYMBOLS)[of.repeat(SYMBOLS)]
        row, symbols = np.divmod(order[place < width], SYMBOLS)
        of, state, scores = of[row], state[row], total[row, symbols]
        digits = [digits[r] + (str(symbol) if symbol != STOP else "") for r, symbol in zip(row, symbols, strict=True)]
        for i in np.flatnonzero(symbols == STOP):
            if scores[i] > best[of[i]]:
                found[of[i]], best[of[i]] = digits[i], scores[i]
        on = np.flatnonzero((symbols != STOP) & (scores > best[of]))  # a score only falls
        if len(on) == 0:
            break
        of, state, scores, symbols, digits = of[on], state[on], scores[on], symbols[on], [digits[i] for i in on]
    return found


def share(model, pairs, width):
    """The share of texts whose number is found to the last digit."""
    texts, numbers = zip(*pairs, strict=True)
    return np.mean([found == str(number) for found, number in zip(answers(model, texts, width), numbers, strict=True)])


def draw(model, texts, path):
    """Draw the weight of each letter for each digit of the answers."""
    found = answers(model, texts, 1)
    given = nbp.pack_sequence([np.array([STOP, *map(int, digits)]) for digits in found])
    h, h_n = encoded(model, texts)
    s, _ = model.decoder(given, first_state(h_n))
    weights = nbp.unpack_sequence(nbp.attend(s, h, h)[1])
    heights = [len(digits) + 1 for digits in found]
    _, axes = plt.subplots(len(texts), figsize=(9, 0.28 * sum(heights) + len(texts)), height_ratios=heights)
    for ax, text, digits, shares in zip(axes, texts, found, weights, strict=True):
        ax.imshow(shares[:, : len(text)], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(text)), text)
        ax.set_yticks(range(len(digits) + 1), [*digits, "stop"])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    plt.tight_layout()
    plt.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
