"""The 2-D map of a library: a point for each picture by t-SNE, and the place of a query on it."""

import numpy as np
import numpy.typing as npt

from imgret.index import Index

MAPPED = 5000
"""The largest number of pictures on a map. The layout of 5,000 takes 12 s, that of 545 takes 1 s."""

# Of 1 to 10 neighbours and weights s, exp(20 s) and exp(50 s) these place a held-out picture nearest to its true point:
# half of examples/library within 0.012 (10 neighbours weighted by s: within 0.042).
NEIGHBOURS, SHARPNESS = 5, 50.0

CENTRE = 0.5


def warm() -> None:
    """Imports scikit-learn now, so that `tsne_layout` does not wait for it."""
    import sklearn.manifold  # noqa: F401


def tsne_layout(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The t-SNE layout of embeddings (van der Maaten and Hinton, 2008), by scikit-learn.

    (N, d) rows of norm 1 -> (N, 2) float32 in [0, 1], with the longer side of the map scaled to 1. Above MAPPED rows,
    an even sample gets points and all others are NaN. The same embeddings give the same map.
    """
    count = len(embeddings)
    mapped = min(count, MAPPED)
    rows = np.arange(mapped) * count // mapped
    points = np.full((count, 2), np.nan, np.float32)
    points[rows] = _points(np.asarray(embeddings[rows]))
    return points


def locate(index: Index, vector: npt.NDArray[np.float32]) -> tuple[float, float] | None:
    """The point of a query on the map of an index, between its nearest pictures.

    `vector` (d,) is the query's unit vector, as `Retriever.embed_query` gives it. The point is the mean of the points
    of the 5 nearest, weighted by exp(50 * similarity), so that a picture of the library lies on its own point. None
    where the index has no map.
    """
    if index.map is None:
        return None
    rows, points = index.map
    scores = index.embeddings[rows].astype(np.float64) @ vector.astype(np.float64)
    nearest = np.argsort(-scores, kind="stable")[:NEIGHBOURS]
    weights = np.exp(SHARPNESS * (scores[nearest] - scores[nearest[0]]))
    x, y = weights @ points[nearest] / weights.sum()
    return float(x), float(y)


def enclosed(points: npt.NDArray[np.floating], corners: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Which of the points (M, 2) lie within the polygon with these corners (C, 2), by the even-odd rule: a ray from the
    point to the right crosses its sides an odd number of times. (M,)
    """
    x, y = points[:, :1], points[:, 1:]
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    crosses = (y0 > y) != (y1 > y)
    rise = np.where(y1 == y0, 1, y1 - y0)  # no ray crosses a level side
    return (crosses & (x < x0 + (y - y0) * (x1 - x0) / rise)).sum(axis=1) % 2 == 1


def _points(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    count = len(embeddings)
    # Pictures that are all the same have no principal direction to start from: scikit-learn then ends the process.
    if float(np.max(np.ptp(embeddings, axis=0))) == 0:
        return np.full((count, 2), CENTRE, np.float32)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # 500 iterations are enough: with 1,000 no more of the neighbours are kept, in examples/library and in 2,000
    # photographs of CIFAR-10.
    model = TSNE(perplexity=min(30.0, (count - 1) / 3), max_iter=500, metric="cosine", init="pca", random_state=0)
    # Threads wait for each other at each step: beside another process two of them take 4 s for 39 pictures, one 0.1;
    # alone on two cores they take three quarters of the time of one.
    with threadpool_limits(1, "openmp"):
        flat = np.asarray(model.fit_transform(embeddings), np.float64)
    low, sides = flat.min(axis=0), np.ptp(flat, axis=0)
    longer = sides.max()
    return ((flat - low + (longer - sides) / 2) / longer).astype(np.float32)
