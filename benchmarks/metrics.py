"""What do the four metrics find on pixels and on embeddings, and which of them rank alike?

    python -m benchmarks.metrics INDEX [--queries 500]

Prints precision@1, precision@10 and mAP by label, as `imgret evaluate --method` does, and for each pair of methods how
much of their ten nearest is the same, and how often all ten are, in the same order.
"""

import argparse
from itertools import combinations

import numpy as np

from imgret import Index, Retriever
from imgret.evaluate import evaluate
from imgret.metrics import METRICS
from imgret.search import EMBEDDING_METHODS, METHODS

K = 10


def nearest(retriever: Retriever, method: str, id: str) -> list[int]:
    if method in METRICS:
        return [hit.row for hit in retriever.by_pixels(metric=method, like=id, k=K)]
    return [hit.row for hit in retriever.by_embedding(metric=EMBEDDING_METHODS.get(method, "cosine"), like=id, k=K)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    retriever = Retriever(Index.open(options.index))
    methods = (*METHODS, *EMBEDDING_METHODS)
    found = evaluate(retriever, options.queries, methods=methods)
    print(f"{found.queries} queries over {len(retriever.index)} pictures, {retriever.index.manifest.encoder.uri}")
    print(f"{'':<18}{'precision@1':>12}{'precision@10':>14}{'mAP':>8}")
    for method, figures in found.methods.items():
        print(f"{method:<18}{figures['precision@1']:>12.3f}{figures['precision@10']:>14.3f}{figures['map']:>8.3f}")
    rows = np.random.default_rng(0).permutation(len(retriever.index))[: options.queries]
    ids = [retriever.index.record(int(row)).id for row in rows]
    hits = {method: [nearest(retriever, method, id) for id in ids] for method in methods}
    print(f"{'pair':<36}{'in common':>10}{'equal':>8}")
    for one, other in combinations(methods, 2):
        pairs = list(zip(hits[one], hits[other], strict=True))
        common = np.mean([len({*first} & {*second}) / K for first, second in pairs])
        equal = np.mean([first == second for first, second in pairs])
        print(f"{f'{one}, {other}':<36}{common:>10.3f}{equal:>8.3f}")


if __name__ == "__main__":
    main()
