"""`imgret info`: says what an index holds, as its manifest has it."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from imgret.cli.shared import Commands, size_of

MAX_LABELS = 10


def add(commands: Commands) -> None:
    command = commands.add_parser("info", help="say what an index holds")
    command.set_defaults(run=run)
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("--json", action="store_true", help="print the manifest")


def run(options: argparse.Namespace) -> None:
    from imgret.manifest import Manifest

    manifest = Manifest.read(Path(options.folder))
    if options.json:
        print(json.dumps(asdict(manifest), ensure_ascii=False, default=str))
        return
    library, encoder, recall = manifest.library, manifest.encoder, manifest.recall
    part = [f"{name} {value}" for name, value in library.part.items() if value]
    labels = sorted(manifest.labels.items(), key=lambda one: (-one[1], one[0]))
    shown = ", ".join(f"{name} {count}" for name, count in labels[:MAX_LABELS])
    rest = f", and {len(labels) - MAX_LABELS} more" if len(labels) > MAX_LABELS else ""
    where = f"on the Chroma server at {manifest.vectors.url}" if manifest.vectors else "in the index"
    filtered = [
        f"{float(share):.1%}: {found.recall:.4f} of {found.k} in {found.rows} rows"
        if found
        else f"{float(share):.1%}: not measured"
        for share, found in manifest.filtered.items()
    ]
    rows = {
        "library": ", ".join([library.source, *part]),
        "read": "\n".ljust(16).join(manifest.description) or "not noted by the release that built it",
        "pictures": f"{manifest.count}, {manifest.skipped_count} skipped",
        "labels": f"{len(labels)}: {shown}{rest}" if labels else "none",
        "encoder": f"{encoder.uri}, {encoder.dim} dimensions, reads {', '.join(encoder.languages)}",
        "pixel vectors": f"{manifest.pixel_size} x {manifest.pixel_size} pixels",
        "embeddings": f"{where}; recall@{recall.k} {recall.recall:.4f} with ef_search {recall.ef_search}",
        "label filters": f"exact; Chroma's own would find, by their share: {'; '.join(filtered) or 'not measured'}",
        "size": f"{size_of(sum(entry.size for entry in manifest.files.values()))} in {len(manifest.files)} files",
        "built": manifest.created,
    }
    for name, value in rows.items():
        print(f"{name + ':':<15}{value}")
