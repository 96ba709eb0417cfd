"""A map keeps neighbours together, is the same each time, and knows where a query belongs."""

import numpy as np
import pytest

from imgret import projection
from imgret.images import load_image
from tests.conftest import QUERIES


def nearest(distances, k=10):
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :k]


def test_neighbours_stay_neighbours_on_the_map(retriever):
    rows, points = retriever.index.map
    assert (rows == np.arange(len(retriever.index))).all()
    assert points.dtype == np.float32
    assert (points.min(), points.max()) == (0, 1)
    similar = nearest(-(retriever.index.embeddings @ retriever.index.embeddings.T))
    close = nearest(np.linalg.norm(points[:, None] - points, axis=2))
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(similar, close, strict=True)])
    assert kept > 0.45  # 0.52 when it was written; the two principal components keep 0.14


def test_the_same_library_has_the_same_map(retriever):
    some = retriever.index.embeddings[::5]
    assert (projection.tsne_layout(some) == projection.tsne_layout(some)).all()


def test_of_a_large_library_a_part_drawn_evenly_is_on_the_map(retriever, monkeypatch):
    monkeypatch.setattr(projection, "MAPPED", 40)
    points = projection.tsne_layout(retriever.index.embeddings[:100])
    on = np.flatnonzero(~np.isnan(points).any(axis=1))
    assert len(on) == 40
    assert set(np.diff(on)) == {2, 3}
    assert np.isnan(np.delete(points, on, axis=0)).all()
    assert (points[on].min(), points[on].max()) == (0, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_map_of_a_few_pictures_is_still_one(retriever, count):
    points = projection.tsne_layout(retriever.index.embeddings[:count])
    assert points.shape == (count, 2)
    assert ((points >= 0) & (points <= 1)).all()
    assert len(np.unique(points, axis=0)) == count


def test_pictures_that_are_all_the_same_lie_in_the_middle(retriever):
    assert (projection.tsne_layout(retriever.index.embeddings[:1].repeat(20, axis=0)) == 0.5).all()


def test_a_picture_of_the_library_belongs_on_its_own_point(retriever):
    rows, points = retriever.index.map
    away = [
        np.hypot(*np.subtract(projection.locate(retriever.index, retriever.index.embeddings[row]), point))
        for row, point in zip(rows, points, strict=True)
    ]
    assert np.median(away) < 0.001
    assert np.mean(away) < 0.01


def test_a_new_picture_belongs_among_those_it_resembles(retriever):
    _, points = retriever.index.map
    ids = retriever.index.column("id")
    away = []
    for path in QUERIES.glob("*.webp"):
        query = load_image(path)
        here = projection.locate(retriever.index, retriever.embed_query(image=query))
        hits = [ids.index(hit.id) for hit in retriever.by_clip(image=query, k=3)]
        away.append(np.linalg.norm(points[hits] - here, axis=1).min())
    assert np.median(away) < 0.03


def test_a_polygon_encloses_the_points_whose_angles_to_its_corners_add_up_to_a_turn():
    draw = np.random.default_rng(0)
    points = draw.random((500, 2))
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    corners = 0.5 + draw.uniform(0.1, 0.6, (24, 1)) * np.column_stack([np.cos(turns), np.sin(turns)])
    to_corners = (corners[None] - points[:, None]) @ [1, 1j]
    angles = np.angle(np.roll(to_corners, -1, axis=1) / to_corners).sum(axis=1)
    expected = np.abs(angles) > np.pi
    assert 100 < expected.sum() < 400
    assert (projection.enclosed(points, corners) == expected).all()
    assert (projection.enclosed(points, corners[::-1]) == expected).all()


def test_what_a_polygon_goes_around_twice_is_not_in_it():
    square = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
    assert projection.enclosed(np.array([(0.5, 0.5)]), square).all()
    assert not projection.enclosed(np.array([(0.5, 0.5)]), np.concatenate([square, square])).any()
