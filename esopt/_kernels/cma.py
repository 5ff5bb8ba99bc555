"""One generation of the CMA family: selection, paths, step size, covariance; and its stop rules.

Everything works on the noise rows eps and on a factor A of C = A A^T: y = A eps, so that C^-1/2 y is a rotation of eps
and never has to be solved for. The symbols are those of Hansen (2016), The CMA evolution strategy: a tutorial,
arXiv:1604.00772, appendix A.
"""

import math

import numpy as np

from .jit import kernel


@kernel()
def order(values):
    """Return the rows from best to worst, ties in the order of the rows, nan last."""
    first = np.argsort(values, kind="mergesort")
    if not np.isnan(values).any():
        return first
    out, at = np.empty(first.size, np.int64), 0
    for failed in (False, True):
        for i in first:
            if math.isnan(values[i]) == failed:
                out[at] = i
                at += 1
    return out


@kernel()
def select(eps, values, weights):
    """Return eps (n, d) float64 from best to worst, its weighted sum over the positive weights, and signed weights.

    Negative weights are divided by |eps_i|^2 / d, so that a single long row cannot make C indefinite.
    """
    n, dim = eps.shape
    ranked, mean, own = np.empty((n, dim)), np.zeros(dim), weights.copy()
    rows = order(values)
    for k in range(n):
        length = 0.0
        for j in range(dim):
            e = np.float64(eps[rows[k], j])
            ranked[k, j] = e
            length += e * e
        if weights[k] > 0.0:
            for j in range(dim):
                mean[j] += weights[k] * ranked[k, j]
        elif length > 0.0:
            own[k] = weights[k] * dim / length
        if math.isnan(values[rows[k]]):
            own[k] = 0.0 if weights[k] < 0.0 else own[k]
    return ranked, mean, own


@kernel(error_model="numpy")
def paths(white, step, generation, c_sigma, damping, c_c, mass, path_sigma, path_c):
    """Return p_sigma, p_c, the logarithm of the change of sigma, and h_sigma.

    ``white`` (d,) is C^-1/2 times the mean's ``step`` (d,); ``mass`` is mu_eff.
    """
    dim = white.size
    expected = math.sqrt(dim) * (1.0 - 1.0 / (4.0 * dim) + 1.0 / (21.0 * dim * dim))
    after_sigma = (1.0 - c_sigma) * path_sigma + math.sqrt(c_sigma * (2.0 - c_sigma) * mass) * white
    length = math.sqrt((after_sigma * after_sigma).sum())
    unbiased = length / math.sqrt(1.0 - (1.0 - c_sigma) ** (2.0 * (generation + 1)))
    moving = unbiased < (1.4 + 2.0 / (dim + 1.0)) * expected
    after_c = (1.0 - c_c) * path_c
    if moving:
        after_c = after_c + math.sqrt(c_c * (2.0 - c_c) * mass) * step
    return after_sigma, after_c, min(1.0, c_sigma / damping * (length / expected - 1.0)), moving


@kernel()
def root(rows, weights, alpha):
    """Return Q (d, k), T (k, k) and U (k, k) for R = sqrt(alpha) I + Q T Q^T with R^2 = alpha I + sum_k w_k z_k z_k^T.

    R^-1 = I / sqrt(alpha) + Q U Q^T. With fewer ``rows`` z (k, d) than columns nothing of size (d, d) is decomposed.
    """
    k, dim = rows.shape
    if k < dim:
        orthonormal, triangle = np.linalg.qr(rows.T)
        basis, corner = np.ascontiguousarray(orthonormal), np.ascontiguousarray(triangle)
    else:
        basis, corner = np.eye(dim), rows.T.copy()
        k = dim
    inner = np.dot(corner * weights, corner.T)
    for i in range(k):
        inner[i, i] += alpha
    values, vectors = np.linalg.eigh(inner)
    base = math.sqrt(alpha)
    roots = np.sqrt(np.maximum(values, 1e-3 * alpha))
    forth = np.dot(vectors * (roots - base), vectors.T)
    back = np.dot(vectors * (1.0 / roots - 1.0 / base), vectors.T)
    return basis, forth, back


@kernel()
def diagonal(ranked, deviations, variances, weights, c_1, c_mu, path, lost):
    """Return the diagonal of C, (d,): :func:`full` for coordinates that do not depend on each other."""
    dim = variances.size
    after = np.empty(dim)
    for j in range(dim):
        after[j] = lost * variances[j] + c_1 * path[j] * path[j]
    for k in range(ranked.shape[0]):
        weight = c_mu * weights[k]
        for j in range(dim):
            y = deviations[j] * ranked[k, j]
            after[j] += weight * y * y
    return after


@kernel(error_model="numpy")
def tell_full(eps, values, generation, mean, sigma, factor, path_sigma, path_c, weights, rates):
    """Return mean, sigma, A, p_sigma and A^-1 p_c after a generation; C = A A^T.

    ``rates`` are c_m, c_sigma, d_sigma, c_c, c_1, c_mu and mu_eff. The covariance A (alpha I + sum w z z^T) A^T has the
    factor A R, R the symmetric root of the bracket, so that C is never decomposed; paths live in the space of z.
    """
    c_m, c_sigma, damping, c_c, c_1, c_mu, mass = rates
    n, dim = eps.shape
    ranked, white, own = select(eps, values, weights)
    p_sigma, p_c, change, moving = paths(white, white, generation, c_sigma, damping, c_c, mass, path_sigma, path_c)
    stalled = 0.0 if moving else c_c * (2.0 - c_c)
    rows, masses = np.empty((n + 1, dim)), np.empty(n + 1)
    rows[:n], rows[n] = ranked, p_c
    masses[:n], masses[n] = c_mu * own, c_1
    # A large population in few dimensions forgets C at once (c_1 + c_mu = 1): the root needs a little of it.
    alpha = max(1e-3, 1.0 + c_1 * stalled - c_1 - c_mu * weights.sum())
    basis, forth, back = root(rows, masses, alpha)
    wide = np.dot(np.dot(factor, basis), forth)
    after = math.sqrt(alpha) * factor + np.dot(wide, basis.T)
    p_c = p_c / math.sqrt(alpha) + np.dot(basis, np.dot(back, np.dot(basis.T, p_c)))
    return mean + c_m * sigma * np.dot(factor, white), sigma * math.exp(change), after, p_sigma, p_c


@kernel(error_model="numpy")
def tell_diagonal(eps, values, generation, mean, sigma, variances, path_sigma, path_c, weights, rates):
    """Return mean, sigma, diag C, p_sigma and p_c after a generation; ``rates`` as in :func:`tell_full`."""
    c_m, c_sigma, damping, c_c, c_1, c_mu, mass = rates
    ranked, white, own = select(eps, values, weights)
    deviations = np.sqrt(variances)
    step = deviations * white
    p_sigma, p_c, change, moving = paths(white, step, generation, c_sigma, damping, c_c, mass, path_sigma, path_c)
    stalled = 0.0 if moving else c_c * (2.0 - c_c)
    lost = 1.0 + c_1 * stalled - c_1 - c_mu * weights.sum()
    after = diagonal(ranked, deviations, variances, own, c_1, c_mu, p_c, lost)
    return mean + c_m * sigma * step, sigma * math.exp(change), np.maximum(after, 0.0), p_sigma, p_c


@kernel()
def remember(history, values):
    """Return ``history`` (2, h) of best and median values, newest first, with this generation's."""
    after = np.empty_like(history)
    after[:, 1:] = history[:, :-1]
    finite = np.sort(values[~np.isnan(values)])
    after[0, 0] = finite[0] if finite.size else math.nan
    after[1, 0] = finite[finite.size // 2] if finite.size else math.nan
    return after


@kernel(error_model="numpy")
def reasons(generation, recent, mean, sigma, start, deviations, axes, lengths, path_c, history, latest):
    """Return a number for each of the stop rules that holds, nan for the others.

    In order: tolfun (range of recent best and latest values), tolfunhist (of best values), tolx (largest step),
    tolup (growth of the largest deviation), condition, noeffectaxis, noeffectcoord, stagnation, flat (generations
    without a difference). ``history`` (2, h), of which ``recent`` entries count for the ranges; ``axes`` (d, d) are the
    columns of A, or (0, 0) for a diagonal; ``lengths`` the square roots of C's eigenvalues, or (0,) if unknown;
    ``latest`` the last values.
    """
    out = np.full(9, math.nan)
    dim = mean.size
    known = min(generation, recent)
    best = history[0, :known]
    if known >= recent:
        spread = best.max() - best.min()
        both = max(latest.max(), best.max()) - min(latest.min(), best.min())
        if both < 1e-11:
            out[0] = both
        if spread < 1e-12:
            out[1] = spread
    largest, widest = 0.0, 0.0
    for j in range(dim):
        widest = max(widest, deviations[j])
        largest = max(largest, deviations[j], abs(path_c[j]))
    if sigma * largest < 1e-12 * start:
        out[2] = sigma * largest
    if sigma * widest > 1e4 * start:
        out[3] = sigma * widest / start
    if lengths.size and lengths.max() ** 2 > 1e14 * lengths.min() ** 2:
        out[4] = (lengths.max() / lengths.min()) ** 2
    axis = generation % dim
    same = True
    for j in range(dim):
        along = axes[j, axis] if axes.shape[0] else (deviations[j] if j == axis else 0.0)
        same = same and mean[j] == mean[j] + 0.1 * sigma * along
    if same:
        out[5] = axis
    for j in range(dim):
        if mean[j] == mean[j] + 0.2 * sigma * deviations[j]:
            out[6] = j
            break
    size = history.shape[1]
    if generation >= size and generation % 20 == 0:
        third = max(1, 3 * size // 10)
        newer = np.median(history[0, :third]) >= np.median(history[0, size - third :])
        if newer and np.median(history[1, :third]) >= np.median(history[1, size - third :]):
            out[7] = generation
    flat = 0
    while flat < known and history[0, flat] == history[1, flat] == history[0, 0]:
        flat += 1
    if flat >= 3:
        out[8] = flat
    return out
