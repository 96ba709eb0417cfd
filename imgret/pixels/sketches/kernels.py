"""The compiled loops of the search by sketches: bounds of all rows, exact keys of a few.

They release the interpreter, so several may run at once, and never divide their work: numba's own threads abort a
process that enters them twice. numba widens whole numbers to 64 bits at each operation; casting back keeps vector
lanes short.

Why numba: reading all rows of 50,000 x 3,072 takes it 8.7 (L1) to 13.7 ms (correlation) on one thread where one full
read takes 6.3 (Zen 4); FAISS flat 27 to 34 ms on two; numpy 340 to 1,900. simsimd (2 MB), numkong (46 MB) take 6 ms
for dot products, but know no L1 of uint8, no scan of sketches, and no rows out of turn: an L1 scan that takes numba
0.03 ms takes numpy 3. The price is 208 MB on disk, 0.2 to 0.35 s to import, and `Sketches.warm`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from imgret.pixels.sketch_layout import BLOCKS, DIRECTIONS

Function = TypeVar("Function", bound=Callable[..., Any])

L1, L2, COSINE, CORRELATION = range(4)
CODES = {"l1": L1, "l2": L2, "cosine": COSINE, "correlation": CORRELATION}


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Function = numba.njit(function, cache=True, **options)
    except RuntimeError:  # numba has nowhere to write its cache
        compiled = numba.njit(function, **options)
    return compiled


_reordered = partial(_compiled, fastmath={"reassoc", "contract"})
"""For float sums that are widened by their rounding in any order."""


def _prefetch_intrinsic(_: Any, array: Any, offset: Any) -> Any:
    """Ask for the memory at `offset` items after the array's first."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(prefetch, [pointer, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


_prefetch: Any = intrinsic(_prefetch_intrinsic)


@_compiled
def _prefetch_row(array: Any, rows: Any, i: int, start: int, width: int) -> None:
    """Prefetches the i-th row while others are worked on: rows in any order are then up to 1.8 times as fast."""
    if i < rows.size:
        for at in range(start, start + width, 64 // array.itemsize):
            _prefetch(array, rows[i] * array.shape[1] + at)


@_compiled
def find(
    pixels: Any,
    query: Any,
    code: int,
    k: int,
    first: int,
    directions: Any,
    blocks: Any,
    weights: Any,
    query_blocks: Any,
    terms: Any,
) -> Any:
    """Keys and rows of the k best, in no order, and how many rows were read."""
    n, levels = len(pixels), len(terms)
    keys, best = np.full(k, np.inf), np.full(k, n)
    if levels == 0 or 8 * first >= n:  # too short for a sketch, or too few to be worth one
        return keys, best, _visit_all(pixels, query, code, keys, best)
    if code == L1:
        bounds = _scan_blocks(blocks.coarse, query_blocks, terms[0], blocks.slacks[0])
    else:
        bounds = _scan_dots(directions, weights, terms[0], code)
    left, left_bounds = _smallest(bounds, 4 * first)
    if left.max() == n:  # damaged or forged: most bounds are no numbers
        return keys, best, _visit_all(pixels, query, code, keys, best)
    if levels > 1:
        everything = np.float32(np.inf)
        left, left_bounds = _level(levels - 1, code, directions, blocks, weights, query_blocks, terms, left, everything)
    left = left[np.argsort(left_bounds)][:first]
    rows_scanned = _visit(pixels, query, code, keys, best, left, np.full(first, np.float32(-np.inf)))
    for row in left:
        bounds[row] = np.inf
    # Rounded up: the row of an equal key may come first, so the limit must not be below the k-th best key in float32.
    limit = np.nextafter(np.float32(keys[0]), np.float32(np.inf))
    left, left_bounds = _within(bounds, limit)
    before = n
    for level in range(1, levels):
        if left.size > 0.9 * before:
            break  # these sketches hardly tell rows apart, and longer ones would cost more than they save
        before = left.size
        left, left_bounds = _level(level, code, directions, blocks, weights, query_blocks, terms, left, limit)
    if 4 * left.size < n:  # else memory gives rows so much faster as they lie that order by bound does not pay
        order = np.argsort(left_bounds)
        left, left_bounds = left[order], left_bounds[order]
    return keys, best, rows_scanned + _visit(pixels, query, code, keys, best, left, left_bounds)


@_compiled
def _level(
    level: int,
    code: int,
    directions: Any,
    blocks: Any,
    weights: Any,
    query_blocks: Any,
    terms: Any,
    rows: Any,
    limit: Any,
) -> Any:
    """Of the rows, those whose bounds at a finer level are within the limit, and these bounds."""
    if code != L1:
        return _bound_dots(directions, weights[: DIRECTIONS[level]], terms[level], level, code, rows, limit)
    start = 0
    for before in range(1, level):
        start += BLOCKS[before]
    codes = query_blocks[BLOCKS[0] + start :]
    if codes.size < BLOCKS[level]:
        codes = query_blocks[BLOCKS[0] + start - BLOCKS[level - 1] :]
        return _bound_channels(blocks.fine, codes, terms[level - 1 :], blocks.slacks[level], rows, limit)
    return _bound_blocks(blocks.fine, start, codes[: BLOCKS[level]], terms[level], blocks.slacks[level], rows, limit)


@_compiled
def _dot_bound(code: int, terms: Any, products: Any, residual: Any, mean: Any, spread: Any, inverse: Any) -> Any:
    q_mean, q_spread, q_inverse, q_residual, off, rounding = terms
    # The centred row is c = P p + r with P orthonormal: c_q.c_x = p_q.p_x + r_q.r_x, and r_q.r_x <= |r_q| |r_x| by
    # Cauchy and Schwarz. p_q.p_x is at most its sum with the codes (`products`) plus what rounding can add (`off`).
    covariance = products + off + q_residual * residual
    # With a = mean sqrt(D) and u the constant unit vector, the row is a u + c, and u.c = 0. So
    # |q - x|^2 = (a_q - a_x)^2 + |c_q|^2 + |c_x|^2 - 2 c_q.c_x and q.x = a_q a_x + c_q.c_x: a covariance c_q.c_x that
    # is too large makes the squared distance too small and the similarities too large, hence the key too small.
    if code == L2:
        apart, squares = q_mean - mean, q_spread * q_spread + spread * spread
        rounding *= squares + q_mean * q_mean + mean * mean
        return apart * apart + (squares - covariance - covariance) - rounding
    if code == COSINE:
        covariance += q_mean * mean
    return -covariance * q_inverse * inverse - rounding


@_reordered
def _scan_dots(directions: Any, weights: Any, terms: Any, code: int) -> Any:
    """Bounds (N,) float32 of all rows at the coarsest level."""
    inverses = directions.moments[inverse_of(code)]
    bounds = np.empty(inverses.size, np.float32)
    for start in range(0, bounds.size, 1024):
        here = slice(start, start + 1024)
        tile, inverse, residual = bounds[here], inverses[here], directions.residuals[0, here]
        mean, spread = directions.moments[0, here], directions.moments[1, here]
        tile[:] = 0
        for j in range(0, directions.coarse.shape[0], 4):
            a, b = directions.coarse[j, here], directions.coarse[j + 1, here]
            c, d = directions.coarse[j + 2, here], directions.coarse[j + 3, here]
            for i in range(tile.size):
                ab = weights[j] * np.float32(a[i]) + weights[j + 1] * np.float32(b[i])
                tile[i] += ab + weights[j + 2] * np.float32(c[i]) + weights[j + 3] * np.float32(d[i])
        for i in range(tile.size):
            tile[i] = _dot_bound(code, terms, tile[i], residual[i], mean[i], spread[i], inverse[i])
    return bounds


@_reordered
def _bound_dots(directions: Any, weights: Any, terms: Any, level: int, code: int, rows: Any, limit: Any) -> Any:
    """Of the rows, those whose bounds with a finer level's weights are within the limit, and these bounds."""
    means, spreads = directions.moments[0], directions.moments[1]
    inverses, residuals = directions.moments[inverse_of(code)], directions.residuals[level]
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(directions.fine, rows, i + 8, 0, weights.size)
        row = rows[i]
        codes, products = directions.fine[row], np.float32(0)
        for j in range(weights.size):
            products += weights[j] * np.float32(codes[j])
        bound = _dot_bound(code, terms, products, residuals[row], means[row], spreads[row], inverses[row])
        left[count], bounds[count] = row, bound
        count += not bound > limit
    return left[:count], bounds[:count]


@_compiled
def _block_bound(terms: Any, differences: Any, slack: Any) -> Any:
    size, q_slack, rounding = terms
    # Within a block sum |a_i - b_i| >= |sum a_i - sum b_i|, and a block's sum is size * code up to its share of the
    # slack: by the triangle inequality the L1 distance is at least size * sum |code_q - code_x| - slack_q - slack_x.
    # All are whole numbers, exact in float32 up to 2^24; `rounding` is for rows of more than 65,000 values.
    return size * differences * (np.float32(1) - rounding) - slack - q_slack


@_compiled
def _scan_blocks(coarse: Any, codes: Any, terms: Any, slacks: Any) -> Any:
    """Bounds (N,) float32 of all rows at the coarsest level."""
    bounds, sums = np.empty(slacks.size, np.float32), np.empty(1024, np.uint16)  # sums are at most 16 * 255
    for start in range(0, bounds.size, 1024):
        here = slice(start, start + 1024)
        tile, slack = bounds[here], slacks[here]
        sums[:] = 0
        for j in range(coarse.shape[0]):
            code, column = codes[j], coarse[j, here]
            for i in range(column.size):
                sums[i] += np.uint8(max(code, column[i]) - min(code, column[i]))
        for i in range(tile.size):
            tile[i] = _block_bound(terms, np.float32(sums[i]), slack[i])
    return bounds


@_compiled
def _bound_blocks(fine: Any, start: int, codes: Any, terms: Any, slacks: Any, rows: Any, limit: Any) -> Any:
    """Of the rows, those whose bounds with a finer level's codes are within the limit, and these bounds."""
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(fine, rows, i + 8, start, codes.size)
        row = rows[i]
        differences = _absolute_difference(codes, fine[row, start : start + codes.size])
        bound = _block_bound(terms, np.float32(differences), slacks[row])
        left[count], bounds[count] = row, bound
        count += not bound > limit
    return left[:count], bounds[:count]


@_compiled
def _bound_channels(fine: Any, codes: Any, terms: Any, slacks: Any, rows: Any, limit: Any) -> Any:
    """Of the rows, those whose bounds by squares and by their channels are within the limit, and these bounds.

    The codes are those of squares, the last but one level, and of channels: red, green and blue of each four squares.
    """
    # Four squares have twelve parts, each a square's channel. The four sums over channels bound the distance within
    # them as above, and so do the three sums over squares; hence the larger bound does, too. What rounding adds to the
    # larger one is at most the larger of what it adds to either, and the slack sums these up.
    start, groups = fine.shape[1] - codes.size, codes.size // 7
    square, channel, whole = np.int32(terms[0, 0]), np.int32(terms[1, 0]), terms[1].copy()
    whole[0] = 1  # the differences come with their sizes
    squares, channels = codes[: 4 * groups], codes[4 * groups :]
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(fine, rows, i + 8, start, codes.size)
        row, differences = rows[i], np.int32(0)
        own_squares, own_channels = fine[row, start:][: 4 * groups], fine[row, start:][4 * groups :]
        for g in range(groups):
            # Not in loops of four and of three: the compiler then no longer works on many groups at once.
            by_square = _apart(squares[4 * g], own_squares[4 * g]) + _apart(squares[4 * g + 1], own_squares[4 * g + 1])
            by_square += _apart(squares[4 * g + 2], own_squares[4 * g + 2])
            by_square += _apart(squares[4 * g + 3], own_squares[4 * g + 3])
            by_channel = _apart(channels[g], own_channels[g])
            by_channel += _apart(channels[groups + g], own_channels[groups + g])
            by_channel += _apart(channels[2 * groups + g], own_channels[2 * groups + g])
            differences = np.int32(differences + max(np.int32(square * by_square), np.int32(channel * by_channel)))
        bound = _block_bound(whole, np.float32(differences), slacks[row])
        left[count], bounds[count] = row, bound
        count += not bound > limit
    return left[:count], bounds[:count]


@_compiled
def _apart(a: Any, b: Any) -> Any:
    return np.int32(abs(np.int32(np.int32(a) - np.int32(b))))


@_compiled
def _within(bounds: Any, limit: Any) -> Any:
    """The rows whose bounds are within the limit, and these bounds."""
    left, kept, count = np.empty(bounds.size, np.int64), np.empty_like(bounds), 0
    for row in range(bounds.size):
        left[count], kept[count] = row, bounds[row]
        count += not bounds[row] > limit  # also what is no number, as a damaged sketch gives
    return left[:count], kept[:count]


@_compiled
def _smallest(bounds: Any, count: int) -> Any:
    """The rows of the `count` smallest bounds, in no order, and these bounds."""
    keys, rows = np.full(count, np.float32(np.inf)), np.full(count, bounds.size)
    for start in range(0, bounds.size, 64):
        tile, worst, better = bounds[start : start + 64], keys[0], np.int32(0)
        for i in range(tile.size):
            better = np.int32(better + np.int32(tile[i] < worst))
        if better:
            for i in range(tile.size):
                if tile[i] < keys[0]:
                    _offer(keys, rows, tile[i], start + i)
    return rows, keys


@_compiled
def _offer(keys: Any, rows: Any, key: Any, row: Any) -> None:
    """Put a row into the heap of the best in place of its root, the worst, if it is better, or equal and earlier."""
    if not _worse(keys[0], rows[0], key, row):
        return
    at = 0
    while 2 * at + 1 < keys.size:
        child = 2 * at + 1
        if child + 1 < keys.size and _worse(keys[child + 1], rows[child + 1], keys[child], rows[child]):
            child += 1
        if not _worse(keys[child], rows[child], key, row):
            break
        keys[at], rows[at] = keys[child], rows[child]
        at = child
    keys[at], rows[at] = key, row


@_compiled
def _worse(key: Any, row: Any, than_key: Any, than_row: Any) -> bool:
    return bool(key > than_key or (key == than_key and row > than_row))


@_compiled
def _visit(pixels: Any, query: Any, code: int, keys: Any, best: Any, rows: Any, bounds: Any) -> int:
    """Offer the rows to the heap of the best ones with exact keys. How many were read, the others being ruled out."""
    q_total, q_square = total_and_square(query)
    rows_scanned = 0
    for i in range(rows.size):
        _prefetch_row(pixels, rows, i + 2, 0, min(query.size, 4096))
        # No key is below its bound, so a row whose bound is above the worst of the k best has no place among them. One
        # with an equal bound may have: of equal keys that of the smaller row is better.
        if not bounds[i] > keys[0]:
            rows_scanned += 1
            _offer(keys, best, _exact_key(code, query, pixels[rows[i]], q_square, q_total), rows[i])
    return rows_scanned


@_compiled
def _visit_all(pixels: Any, query: Any, code: int, keys: Any, best: Any) -> int:
    return _visit(pixels, query, code, keys, best, np.arange(len(pixels)), np.full(len(pixels), np.float32(-np.inf)))


@_compiled
def all_keys(pixels: Any, query: Any, code: int) -> Any:
    """The exact keys (N,) of all rows."""
    q_total, q_square = total_and_square(query)
    keys = np.empty(len(pixels))
    for row in range(keys.size):
        keys[row] = _exact_key(code, query, pixels[row], q_square, q_total)
    return keys


@_compiled
def _exact_key(code: int, query: Any, row: Any, q_square: int, q_total: int) -> float:
    """The key, in whole numbers up to the last step, as `imgret.metrics` has it."""
    dot, square, total, distance = 0, 0, 0, 0
    for start in range(0, row.size, 16384):  # in 32 bits, as 16384 * 255^2 < 2^31
        a, b = query[start : start + 16384], row[start : start + 16384]
        if code == L1:
            distance += _absolute_difference(a, b)
        elif code == L2:
            distance += _squared_difference(a, b)
        else:
            sums = _sums(a, b)
            dot, square, total = dot + sums[0], square + sums[1], total + sums[2]
    if code in (L1, L2):
        return float(distance)
    if code == CORRELATION:
        dot = row.size * dot - q_total * total
        square, q_square = row.size * square - total * total, row.size * q_square - q_total * q_total
    norms = math.sqrt(q_square) * math.sqrt(square)
    return max(-1.0, min(1.0, -dot / norms)) if norms > 0 else 0.0


@_compiled
def _absolute_difference(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(b.size):
        total = np.int32(total + _apart(a[i], b[i]))
    return total


@_compiled
def _squared_difference(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(b.size):
        difference = np.int32(np.int32(a[i]) - np.int32(b[i]))
        total = np.int32(total + np.int32(difference * difference))
    return total


@_compiled
def _sums(a: Any, b: Any) -> Any:
    """Of a * b, of b * b, and of b."""
    dot, square, total = np.int32(0), np.int32(0), np.int32(0)
    for i in range(b.size):
        value = np.int32(b[i])
        dot = np.int32(dot + np.int32(np.int32(a[i]) * value))
        square = np.int32(square + np.int32(value * value))
        total = np.int32(total + value)
    return dot, square, total


@_compiled
def total_and_square(values: Any) -> Any:
    total, square = 0, 0
    for start in range(0, values.size, 16384):
        sums = _sums(values[start : start + 16384], values[start : start + 16384])
        total, square = total + sums[2], square + sums[1]
    return total, square


@_compiled
def moments_of(totals: Any, squares: Any, dim: int) -> Any:
    """mean sqrt(D), norm of the centred row, inverses of the norm and of that (0 of 0); (4, n) from int64 sums (n,)."""
    moments = np.zeros((4, totals.size))
    for i in range(totals.size):
        norm, spread = math.sqrt(squares[i]), math.sqrt((squares[i] * dim - totals[i] * totals[i]) / dim)
        moments[0, i], moments[1, i] = totals[i] / math.sqrt(dim), spread
        moments[2, i], moments[3, i] = 1 / norm if norm > 0 else 0.0, 1 / spread if spread > 0 else 0.0
    return moments


@_compiled
def inverse_of(code: int) -> int:
    """Which of the moments the similarity is divided by."""
    return 2 if code == COSINE else 3


@_reordered
def project(basis: Any, query: Any, mean: float) -> Any:
    """The coefficients (m,) of the centred query, summed in float64; m is a multiple of 4."""
    centred, coefficients = query - mean, np.empty(len(basis))
    for j in range(0, len(basis), 4):
        a, b, c, d = basis[j], basis[j + 1], basis[j + 2], basis[j + 3]
        sum_a, sum_b, sum_c, sum_d = 0.0, 0.0, 0.0, 0.0
        for i in range(centred.size):
            sum_a += np.float64(a[i]) * centred[i]
            sum_b += np.float64(b[i]) * centred[i]
            sum_c += np.float64(c[i]) * centred[i]
            sum_d += np.float64(d[i]) * centred[i]
        coefficients[j], coefficients[j + 1], coefficients[j + 2], coefficients[j + 3] = sum_a, sum_b, sum_c, sum_d
    return coefficients


@_compiled
def codes_of(vectors: Any, labels: Any, places: Any) -> Any:
    """Codes (n, sum of widths) and slacks (levels, n) of the rows, and the size of each level's largest block."""
    levels, parts = places.shape
    widths, sizes = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
    sums, counts = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    if levels:
        for j in range(labels.size):
            counts[labels[j]] += 1
    for level in range(levels):
        widths[level], sizes[level] = places[level, -1] + 1, _gathered(counts, places[level]).max()
    codes, slacks = np.zeros((len(vectors), widths.sum()), np.uint8), np.zeros((levels, len(vectors)), np.int64)
    for i in range(len(vectors) if levels else 0):
        row, end, before = vectors[i], 0, sums
        sums[:] = 0
        for j in range(row.size):
            sums[labels[j]] += row[j]
        for level in range(levels):
            size, width = sizes[level], widths[level]
            errors = _gathered(sums, places[level])
            for block in range(width):
                code = (2 * errors[block] + size) // (2 * size)
                codes[i, end + block], errors[block] = code, abs(errors[block] - code * size)
            if level and width < widths[level - 1]:  # of channels
                for g in range(width // 3):
                    slacks[level, i] += max(before[4 * g : 4 * g + 4].sum(), errors[g : width : width // 3].sum())
            else:
                slacks[level, i] = errors.sum()
            before, end = errors, end + width
    return codes, slacks, sizes


@_compiled
def _gathered(sums: Any, places: Any) -> Any:
    """The sums of blocks from those of their parts."""
    blocks = np.zeros(places[-1] + 1, np.int64)
    for part in range(places.size):
        blocks[places[part]] += sums[part]
    return blocks
