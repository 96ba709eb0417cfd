"""How often does the name of its class find a photograph: CIFAR-10's ten classes, in English and in Vietnamese?

    python -m benchmarks.zero_shot --data FOLDER_OF_CIFAR10 [--encoder starter] [--count 1000]

Each of the first pictures of the test split goes to the class whose name has the nearest embedding. Chance is 0.1. The
names are not tried in other words, and nothing is tuned on these pictures.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.pixels import pictures
from imgret import load_encoder
from imgret.encoders import ready_towers

NAMES = {
    "English": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "Vietnamese": [
        "máy bay",
        "ô tô",
        "con chim",
        "con mèo",
        "con hươu",
        "con chó",
        "con ếch",
        "con ngựa",
        "tàu thủy",
        "xe tải",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    encoder = load_encoder(options.encoder, exported=ready_towers(options.encoder))
    images = list(islice(pictures(options.data, True), options.count))
    tables = [table for table in sorted(options.data.rglob("*.parquet")) if "test" in table.name]
    labels = np.concatenate([pq.read_table(table)["label"].to_numpy() for table in tables])[: len(images)]
    step = 64
    embeddings = np.vstack([encoder.embed_images(images[i : i + step]) for i in range(0, len(images), step)])
    print(f"{len(images)} pictures, {options.encoder}")
    for language, names in NAMES.items():
        nearest = (embeddings @ encoder.embed_texts(names).T).argmax(axis=1)
        print(f"{language:<12}{np.mean(nearest == labels):.3f}")


if __name__ == "__main__":
    main()
