"""Attention as plain loops in float64, over one sequence at a time; nothing is shared with the package."""

import math


def softmax(scores):
    highest = max(scores, default=0.0)
    powers = [math.exp(score - highest) for score in scores]
    total = math.fsum(powers)
    return [power / total for power in powers]


def dot(one, other):
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def attend(queries, keys, values, columns):
    """Contexts and weights of a sequence's queries, as lists of lists of floats."""
    weights = [softmax([dot(query, key) for key in keys]) for query in queries]
    contexts = [[dot(row, [value[c] for value in values]) for c in range(columns)] for row in weights]
    return contexts, weights


def attend_back(queries, keys, values, weights, d_contexts):
    """Gradients of queries, keys and values."""
    d_queries = [[0.0] * len(query) for query in queries]
    d_keys, d_values = [[0.0] * len(key) for key in keys], [[0.0] * len(value) for value in values]
    for m, (query, row, d) in enumerate(zip(queries, weights, d_contexts, strict=True)):
        d_weights = [dot(value, d) for value in values]
        mean = dot(row, d_weights)
        for t, key in enumerate(keys):
            d_score = row[t] * (d_weights[t] - mean)
            for e in range(len(query)):
                d_queries[m][e] += d_score * key[e]
                d_keys[t][e] += d_score * query[e]
            for c in range(len(d)):
                d_values[t][c] += row[t] * d[c]
    return d_queries, d_keys, d_values
