"""A strategy of hypothesis: formulas of cells at random."""

from hypothesis import assume
from hypothesis import strategies as st
from plain_formulas import Formula

#: one line each, of numbers x and of y, z that may be constants; they keep to where functions have finite slopes
LINES = [
    "{x} + {y}", "{x} - {y}", "{y} - {x}", "{x} * {y}", "{x} * {z} + {y}", "{y} - {x} * {z}", "{x} * {z} - {y}",
    "-{x}", "1 - {x}", "{x} / 4", "{x} / 3", "{y} / (1.5 + abs({x}))", "{y} / (2 + {x} * {x})", "fma({x}, {y}, {z})",
    "{x} ** 2", "{x} ** 3", "(1.5 + {x} * {x}) ** -2", "reciprocal(1.5 + softplus({x}))",
    "sigmoid({x})", "tanh({x})", "relu({x})", "leaky_relu({x})", "leaky_relu({x}, {y})", "elu({x})", "selu({x})",
    "gelu({x})", "silu({x})", "softplus({x})", "softsign({x})", "hard_sigmoid({x})", "hard_tanh({x})",
    "exp(minimum({x}, 2.0))", "log(abs({x}) + 0.5)", "sqrt({x} * {x} + 0.1)", "abs({x})", "sign({x})", "round({x})",
    "maximum({x}, {y})", "minimum({x}, {y})", "maximum(0.2, {x})", "clip({x}, -0.5, 0.75)",
    "where({x} < {y}, {z}, {x})",
    "where({x} >= 0, {x} * {x}, {y})", "where(({x} > {y}) & ~({x} == {z}), {z}, {y} * {x})",
    "where(({x} <= {y}) | ({z} != {x}), sigmoid({z} + {x}), {x})",
]  # fmt: skip
CONSTANTS = ["0.0", "1.0", "-1.0", "2.0", "0.5", "-0.3"]


@st.composite
def formulas(draw, most_lines=10, bounded=False):
    """Formulas of any arguments. Bounded ones return states that are less than 1."""
    counts = {
        kind: draw(st.integers(least, most), label=kind)
        for kind, least, most in [
            ("sums", 0, 3), ("of_input", 0, 2), ("of_state", 0, 2), ("state", 1, 4), ("unit_weights", 0, 2),
            ("constants", 0, 2),
        ]
    }  # fmt: skip
    assume(counts["sums"] + counts["of_input"])
    letters = dict(sums="s", of_input="x", of_state="u", state="h", unit_weights="w", constants="k")
    kinds = {
        kind: " ".join(f"{letters[kind]}{i}" + "=0.7" * (kind == "constants") for i in range(n))
        for kind, n in counts.items()
        if n
    }
    formula = Formula(kinds, [])
    numbers = [name for kind in kinds for name in formula.names(kind)]
    lines, with_product = [], draw(st.booleans(), label="with product")
    for i in range(draw(st.integers(1, most_lines), label="lines")):
        template = draw(st.sampled_from(LINES))
        x, y, z = draw(st.sampled_from(numbers)), *(draw(st.sampled_from(numbers + CONSTANTS)) for _ in range(2))
        if with_product and i == 1:
            template = "product({x})"
        lines.append(f"v{i} = " + template.format(x=x, y=y, z=z))
        numbers.append(f"v{i}")
    latest = numbers[-min(len(lines), 4) :]
    results = [draw(st.sampled_from(latest)) for _ in range(counts["state"])]
    return Formula(kinds, [f"tanh({x})" for x in results] if bounded else results, lines)
