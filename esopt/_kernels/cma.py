"""One generation of the CMA family: selection, paths, step size, covariance; and its stop rules.

Everything works on the noise rows eps and on a factor A of C = A A^T: y = A eps, so that C^-1/2 y is a rotation of eps
and never has to be solved for. The symbols are those of Hansen (2016), The CMA evolution strategy: a tutorial,
arXiv:1604.00772, appendix A.
"""

import math

import numpy as np

from .factor import accumulate
from .jit import kernel


@kernel()
def order(values):
    """Return the rows from best to worst, ties in the order of the rows, nan last."""
    size = values.size
    out = np.empty(size, np.int64)
    if size <= 64:
        for i in range(size):
            v, at = values[i], i
            while at > 0 and (v < values[out[at - 1]] or (math.isnan(values[out[at - 1]]) and not math.isnan(v))):
                out[at] = out[at - 1]
                at -= 1
            out[at] = i
        return out
    first, at = np.argsort(values, kind="mergesort"), 0
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
def dot(a, b):
    """Return the sum of a * b, in four running sums."""
    size, whole = a.size, a.size // 4 * 4
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    for j in range(0, whole, 4):
        s0 += a[j] * b[j]
        s1 += a[j + 1] * b[j + 1]
        s2 += a[j + 2] * b[j + 2]
        s3 += a[j + 3] * b[j + 3]
    for j in range(whole, size):
        s0 += a[j] * b[j]
    return (s0 + s1) + (s2 + s3)


@kernel(error_model="numpy")
def whiten(rows, weights, last):
    """Overwrite ``rows`` z with v and return b (m,), so that R = I + sum_k b_k z_k v_k^T has R R^T = I + sum w z z^T.

    R is a product of the symmetric I + b_k v_k v_k^T, with v_k = R_k-1^-1 z_k; ``last`` (d,) becomes R^-1 times itself.
    """
    count, dim = rows.shape
    gains = np.empty(count)
    for k in range(count):
        v = rows[k]
        square = dot(v, v)
        length = math.sqrt(max(1.0 + weights[k] * square, 1e-3))
        gains[k] = (length - 1.0) / square if square > 0.0 and weights[k] != 0.0 else 0.0
        if gains[k] == 0.0:
            continue
        back = (1.0 - 1.0 / length) / square
        for i in range(k + 1, count + 1):
            z = rows[i] if i < count else last
            much = back * dot(v, z)
            for j in range(dim):
                z[j] -= much * v[j]
    return gains


@kernel(error_model="numpy")
def root(square):
    """Return the symmetric root of a positive definite matrix (d, d), and its inverse.

    The coupled iteration of Newton and Schulz: Higham (2008), Functions of matrices, eq. 6.35.
    """
    dim = square.shape[0]
    norm = 0.0
    for i in range(dim):
        norm += dot(square[i], square[i])
    norm = math.sqrt(norm)
    forth, back = square / norm, np.eye(dim)
    for _ in range(100):
        half = np.zeros((dim, dim))
        accumulate(forth, back, half)
        error = 0.0
        for i in range(dim):
            for j in range(dim):
                error = max(error, abs(half[i, j] - (1.0 if i == j else 0.0)))
                half[i, j] = (1.5 if i == j else 0.0) - 0.5 * half[i, j]
        after_forth, after_back = np.zeros((dim, dim)), np.zeros((dim, dim))
        accumulate(half, forth, after_forth)
        accumulate(back, half, after_back)
        forth, back = after_forth, after_back
        if not error > 1e-9:  # the convergence is quadratic
            break
    return math.sqrt(norm) * forth, back / math.sqrt(norm)


@kernel()
def reshape(factor, rows, weights, alpha, path):
    """Return A R with R R^T = alpha I + sum_k w_k z_k z_k^T, A times every row z, and R^-1 ``path``."""
    count, dim = rows.shape
    base = math.sqrt(alpha)
    steps = np.zeros((count, dim))
    accumulate(np.ascontiguousarray(factor.T), rows, steps)
    if count > 4 * dim:
        square = np.zeros((dim, dim))
        accumulate(rows, np.ascontiguousarray((rows * weights.reshape(count, 1)).T), square)
        for i in range(dim):
            square[i, i] += alpha
        forth, back = root(square)
        after, inner = np.zeros((dim, dim)), np.zeros((1, dim))
        accumulate(forth, factor, after)
        accumulate(back, path.reshape(1, dim), inner)
        return after, steps, inner[0]
    # Positive weights first: no part of the product is less definite than the whole.
    sequence = np.empty(count, np.int64)
    at = 0
    for sign in (1.0, -1.0):
        for k in range(count):
            if (weights[k] >= 0.0) == (sign > 0.0):
                sequence[at] = k
                at += 1
    inner, ahead = rows[sequence], path / base
    gains = base * whiten(inner, weights[sequence] / alpha, ahead)
    after = base * factor
    sides = np.empty((dim, count))
    for k in range(count):
        for i in range(dim):
            sides[i, k] = gains[k] * steps[sequence[k], i]
    accumulate(inner, sides, after)
    return after, steps, ahead


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
def tell(eps, values, generation, mean, sigma, shape, path_sigma, path_c, history, weights, rates):
    """Return mean, sigma, ``shape``, p_sigma, p_c and the history of values after a generation.

    ``shape`` is a factor A (d, d), C = A A^T, or the diagonal of C (d,); ``rates`` are c_m, c_sigma, d_sigma, c_c, c_1,
    c_mu, mu_eff. The covariance A (alpha I + sum w z z^T) A^T has the factor A R, R a root of the bracket near I, so
    that C is never decomposed. With a factor p_c is kept as A^-1 p_c.
    """
    c_m, c_sigma, damping, c_c, c_1, c_mu, mass = rates
    n, dim = eps.shape
    ranked, white, own = select(eps, values, weights)
    if shape.ndim == 2:
        p_sigma, p_c, change, moving = paths(white, white, generation, c_sigma, damping, c_c, mass, path_sigma, path_c)
        stalled = 0.0 if moving else c_c * (2.0 - c_c)
        rows, masses = np.empty((n + 1, dim)), np.empty(n + 1)
        rows[1:], rows[0] = ranked, p_c
        masses[1:], masses[0] = c_mu * own, c_1
        # A large population in few dimensions forgets C at once (c_1 + c_mu = 1): the root needs a little of it.
        alpha = max(1e-3, 1.0 + c_1 * stalled - c_1 - c_mu * weights.sum())
        after, steps, p_c = reshape(shape, rows, masses, alpha, p_c)
        step = np.zeros(dim)
        for k in range(n):
            if weights[k] > 0.0:
                for j in range(dim):
                    step[j] += weights[k] * steps[k + 1, j]
    else:
        deviations = np.sqrt(shape)
        step = deviations * white
        p_sigma, p_c, change, moving = paths(white, step, generation, c_sigma, damping, c_c, mass, path_sigma, path_c)
        stalled = 0.0 if moving else c_c * (2.0 - c_c)
        lost = 1.0 + c_1 * stalled - c_1 - c_mu * weights.sum()
        after = np.maximum(diagonal(ranked, deviations, shape, own, c_1, c_mu, p_c, lost), 0.0)
    history = remember(history, values)
    return mean + (c_m * sigma) * step, sigma * math.exp(change), after, p_sigma, p_c, history


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
def reasons(generation, recent, mean, sigma, start, deviations, axes, lengths, path_c, history, latest, tolerances):
    """Return a number for each of the stop rules that holds, nan for the others.

    In order: tolfun (range of recent best and latest values), tolfunhist (of best values), tolx (largest step),
    tolup (growth of the largest deviation), condition, noeffectaxis, noeffectcoord, stagnation, flat (generations
    without a difference). ``history`` (2, h), of which ``recent`` entries count for the ranges; ``axes`` (d, d) are the
    columns of A, or (0, 0) for a diagonal; ``lengths`` the square roots of C's eigenvalues, or (0,) if unknown;
    ``latest`` the last values; ``tolerances`` those of tolfun, tolfunhist, and, as a share of ``start``, tolx.
    """
    out = np.full(9, math.nan)
    dim = mean.size
    known = min(generation, recent)
    best = history[0, :known]
    if known >= recent:
        spread = best.max() - best.min()
        both = max(latest.max(), best.max()) - min(latest.min(), best.min())
        if both < tolerances[0]:
            out[0] = both
        if spread < tolerances[1]:
            out[1] = spread
    largest, widest = 0.0, 0.0
    for j in range(dim):
        widest = max(widest, deviations[j])
        largest = max(largest, deviations[j], abs(path_c[j]))
    if sigma * largest < tolerances[2] * start:
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


@kernel()
def judge(generation, recent, mean, sigma, start, shape, units, lengths, path_c, history, latest, tolerances):
    """Return :func:`reasons` for the ``shape`` of :func:`tell`, whether there are any, and whether all is finite.

    ``units`` (d,) are what the condition of a diagonal is measured in; that of a matrix is in ``lengths``.
    """
    dim = mean.size
    finite = math.isfinite(sigma)
    for j in range(dim):
        finite = finite and math.isfinite(mean[j])
    if shape.ndim == 2:
        deviations, path = np.empty(dim), np.empty(dim)
        for i in range(dim):
            deviations[i], path[i] = math.sqrt(dot(shape[i], shape[i])), dot(shape[i], path_c)
        axes = shape
    else:
        deviations, path, axes = np.sqrt(shape), path_c, np.empty((0, 0))
        lengths = deviations / units
    numbers = reasons(
        generation, recent, mean, sigma, start, deviations, axes, lengths, path, history, latest, tolerances
    )  # fmt: skip
    found = False
    for number in numbers:
        found = found or not math.isnan(number)
    return numbers, found, finite
