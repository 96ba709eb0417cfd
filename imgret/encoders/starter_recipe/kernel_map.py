"""Maps two towers that never met into one space, without a training step: DeViSE (Frome et al., 2013) in closed form.

Row c of a classifier's last layer is the direction in which pictures of class c lie. A text that names classes shall
lie where they do: a kernel ridge regression (Saunders et al., 1998, with landmarks as in Nyström's method) takes the
sentence encoder's embeddings there. On the picture side the classes that the classifier sees are mixed in (ConSE,
Norouzi et al., 2014).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DIM = 512
GAMMA = 0.7
RIDGE, FLOOR = 0.3, 1e-3
CLASSES_SHARE = 0.3

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KernelMap:
    """Text embeddings e (n, 384) to vectors: exp(-gamma |x - z|^2) for each landmark z, times `matrix`, for
    x = unit(e - mean); `landmarks` (m, 384), `matrix` (m, d).
    """

    mean: Matrix
    landmarks: Matrix
    matrix: Matrix

    @classmethod
    def fit(cls, embeddings: Matrix, targets: Matrix, weights: Matrix, landmarks: npt.NDArray[np.int64]) -> "KernelMap":
        """The map of least weighted squared error to `targets` (n, d), with a ridge; `landmarks` are row numbers."""
        mean: Matrix = np.mean(embeddings, axis=0, dtype=np.float64)
        x = unit(embeddings - mean)
        z = x[landmarks]
        k, kzz = _kernel(x, z), _kernel(z, z)
        gram = (k * weights[:, None]).T @ k + RIDGE * kzz + FLOOR * np.eye(len(z))
        return cls(mean, z, np.asarray(np.linalg.solve(gram, k.T @ (weights[:, None] * targets)), np.float64))

    def __call__(self, embeddings: Matrix) -> Matrix:
        """Unit vectors (n, d)."""
        return unit(_kernel(unit(embeddings - self.mean), self.landmarks) @ self.matrix)


@dataclass(frozen=True)
class PictureHead:
    """Features h (n, 1280) of the classifier to vectors: `projection` (d, 1280), and the classes with their unit
    `directions` (1000, d), `weights` (1000, 1280) and `bias`.
    """

    projection: Matrix
    weights: Matrix
    bias: Matrix
    directions: Matrix

    @classmethod
    def of(cls, weights: Matrix, bias: Matrix) -> "PictureHead":
        """From the classifier's last layer: its classes differ most along the first right singular vectors."""
        centred = weights - weights.mean(axis=0)
        projection = np.linalg.svd(centred, full_matrices=False)[2][:DIM]
        # A singular vector's sign is arbitrary; fixing it makes the result the same on every machine.
        strongest = np.take_along_axis(projection, np.abs(projection).argmax(axis=1)[:, None], axis=1)
        projection = projection * np.sign(strongest)
        return cls(projection, weights, bias, unit(centred @ projection.T))

    def __call__(self, features: Matrix) -> Matrix:
        """Unit vectors (n, d)."""
        scores = features @ self.weights.T + self.bias
        classes = np.exp(scores - scores.max(axis=1, keepdims=True))
        classes /= classes.sum(axis=1, keepdims=True)
        return unit(unit(features @ self.projection.T) + CLASSES_SHARE * unit(classes @ self.directions))


def unit(rows: Matrix) -> Matrix:
    """Rows divided by their norms."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _kernel(x: Matrix, z: Matrix) -> Matrix:
    """exp(-gamma |x - z|^2) for unit rows: (n, m)."""
    return np.exp(2 * GAMMA * (x @ z.T) - 2 * GAMMA)
