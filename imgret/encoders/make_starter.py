"""How the starter's two projections came about: `python -m imgret.encoders.make_starter` writes starter.npz anew.

Two towers that never met, a classifier of ImageNet pictures and an English sentence encoder, get a common space without
a single training picture. Row c of the classifier's last layer is the direction in which pictures of class c lie; the
sentence encoder can read the name of class c. All that is missing is a linear map from the names' embeddings to those
directions: DeViSE (Frome et al., 2013), solved in closed form by ridge regression.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgret.encoders.starter import DIM, MAP_FILE, classifier_weights, sentence_embeddings

PROMPTS = ("{}", "a photo of a {}", "A {}.")
RIDGE = 30.0
"""It applies to embeddings as mean pooling gives them, with a norm of about 6.7; for unit vectors it would be 0.7."""

Matrix = npt.NDArray[np.float64]


def picture_projection(weights: Matrix) -> Matrix:
    """(512, 1280): the directions in which the classes (1000, 1280) differ most, right singular vectors of the centred
    weights.
    """
    centred = weights - weights.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:DIM]
    # A singular vector's sign is arbitrary; fixing it makes the file the same on every machine.
    strongest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return np.asarray(directions * np.sign(strongest), dtype=np.float64)


def text_projection(embeddings: Matrix, targets: Matrix) -> Matrix:
    """The M (512, 384) of least sum |M e_i - t_i|^2 + ridge |M|^2, for embeddings e (n, 384) and targets t (n, 512)."""
    gram = embeddings.T @ embeddings + RIDGE * np.eye(embeddings.shape[1])
    return np.asarray(np.linalg.solve(gram, embeddings.T @ targets).T, dtype=np.float64)


def class_prompts() -> tuple[list[str], list[int]]:
    """Every synonym of every ImageNet class in every prompt, and the class of each."""
    from timm.data.imagenet_info import ImageNetInfo

    descriptions = map(ImageNetInfo().index_to_description, range(1000))
    named = [(synonym.strip(), c) for c, names in enumerate(descriptions) for synonym in names.split(",")]
    return [prompt.format(name) for name, _ in named for prompt in PROMPTS], [c for _, c in named for _ in PROMPTS]


def main() -> None:
    weights = classifier_weights()
    picture = picture_projection(weights)
    directions = (weights - weights.mean(axis=0)) @ picture.T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    prompts, classes = class_prompts()
    text = text_projection(sentence_embeddings(prompts), directions[classes])
    path = Path(__file__).with_name(MAP_FILE)
    # Half precision moves no vector by more than 1e-3 and halves what the package carries.
    np.savez(path, picture=picture.astype(np.float16), text=text.astype(np.float16))
    print(f"{path}: {len(prompts)} prompts of {len(weights)} classes, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
