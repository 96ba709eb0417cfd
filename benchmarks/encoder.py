"""How fast and how large is an encoder in torch, and exported in fp32 and int8? `python -m benchmarks.encoder`

Each model is exported anew and timed in turns within one process, so that what else the machine does falls on all
alike; the memory of each is that of a process of its own. Every precision is shown, whether `export_encoder` would keep
it or not. The JSON line's ratios are torch's figures over the others' in the same run.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from imgret.encoders import Encoder, load_encoder
from imgret.encoders.export import export_encoder
from imgret.encoders.onnx import CONFIG_FILE, OnnxEncoder
from imgret.encoders.towers import quantise_tower

PICTURES = Path(__file__).parent.parent / "examples" / "library"
TEXT = "a photo of two dogs that play on a beach"
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["ViT-B-32/random", "starter"], help="URIs of encoders")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="a folder with at least 64 pictures")
    parser.add_argument("--rounds", type=int, default=15, help="turns; the median counts")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    files = sorted(p for p in options.pictures.rglob("*") if p.suffix.lower() in (".webp", ".jpg", ".jpeg", ".png"))
    pictures = [Image.open(file).convert("RGB") for file in files[:: max(1, len(files) // 64)][:64]]
    for uri in options.models:
        with tempfile.TemporaryDirectory() as folder:
            measure(uri, Path(folder), pictures, options.rounds)


def measure(uri: str, folder: Path, pictures: list[Image.Image], rounds: int) -> None:
    original = load_encoder(uri)
    start = time.perf_counter()
    export_encoder(original, folder / "fp32", pictures, [], int8=False)
    seconds = time.perf_counter() - start
    ways: dict[str, Encoder] = {"torch": original}
    for precision in ("fp32", *in_int8(folder)):
        ways[precision] = OnnxEncoder(folder / precision)
    pixels = np.stack([original.preprocess(picture) for picture in pictures])
    reference = original.embed_preprocessed(pixels)
    tasks: dict[str, Callable[[Encoder], object]] = {
        "picture": lambda encoder: encoder.embed_preprocessed(pixels[:1]),
        f"of {BATCH}": lambda encoder: encoder.embed_preprocessed(pixels[:BATCH]),
        "text": lambda encoder: encoder.embed_texts([TEXT]),
    }
    results = {way: {"cosine": least_cosine(encoder, pixels, reference)} for way, encoder in ways.items()}
    for task, run in tasks.items():
        for way, milliseconds in in_turns({w: lambda e=e, run=run: run(e) for w, e in ways.items()}, rounds).items():
            results[way][task] = milliseconds / (BATCH if task.startswith("of") else 1)
    for way in ways:
        results[way]["MB"], results[way]["first"] = alone(uri, None if way == "torch" else folder / way)

    print(
        f"\n{uri}: milliseconds a picture or text, MB resident, seconds to a first answer; exported in {seconds:.0f} s"
    )
    columns = [*tasks, "cosine", "MB", "first"]
    print(f"{'':12}" + "".join(f"{column:>10}" for column in columns))
    for way, row in results.items():
        digits = {"cosine": 5, "MB": 0}
        print(f"{way:12}" + "".join(f"{row[column]:10.{digits.get(column, 1)}f}" for column in columns))
    ratios = {
        way: {column: round(results["torch"][column] / row[column], 2) for column in columns if column != "cosine"}
        for way, row in results.items()
    }
    machine = {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    print(json.dumps({"benchmark": "encoder", "model": uri, "machine": machine, "torch over": ratios}))


def in_int8(folder: Path) -> list[str]:
    """Folders beside the fp32 export with the same encoder in each kind of int8; none where that gains nothing."""
    source, made = folder / "fp32", ["int8-rows", "int8-blocks"]
    configs = {precision: json.loads((source / CONFIG_FILE).read_text(encoding="utf-8")) for precision in made}
    for precision in made:
        shutil.copytree(source, folder / precision)
    for kind in ("image", "text"):
        targets = {precision: folder / precision / f"{kind}.{precision}.onnx" for precision in made}
        if quantise_tower(source / configs["int8-rows"][kind]["file"], targets):
            for precision, target in targets.items():
                configs[precision][kind] = {"file": target.name, "precision": precision}
    for precision, config in configs.items():
        (folder / precision / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return made


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median milliseconds of each way, after one turn that does not count."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            times[way].append(1000 * (time.perf_counter() - start))
    return {way: statistics.median(measured[1:]) for way, measured in times.items()}


def least_cosine(encoder: Encoder, pixels: np.ndarray, reference: np.ndarray) -> float:
    return float((encoder.embed_preprocessed(pixels) * reference).sum(axis=1).min())


def alone(uri: str, exported: Path | None) -> tuple[float, float]:
    """Resident MB after a picture and a text, and seconds from the process's start to both, in a process of its own."""
    code = f"""
import sys, warnings
from pathlib import Path
from PIL import Image
from imgret.encoders import load_encoder
warnings.simplefilter("ignore")
encoder = load_encoder({uri!r}, exported={"None" if exported is None else f"Path({str(exported)!r})"})
encoder.embed_images([Image.new("RGB", (300, 200))])
encoder.embed_texts([{TEXT!r}])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return int(run.stdout) / 1024, time.perf_counter() - start


if __name__ == "__main__":
    main()
