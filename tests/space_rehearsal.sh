#!/usr/bin/env bash
# The whole life of a Space on this machine, with a Hub on loopback in the place of the real one:
#
#   deploy    `imgret deploy` builds and publishes an index of a data set, and creates the Space
#   build     the Space's own files in an empty virtual environment and an empty home: install its requirements.txt,
#             preload what its README.md's YAML block says
#   start     with the Hub gone, app.py as the Space starts it; gradio_client asks it for its first hits
#
#   PYTHON           runs the Hub and the deploying; imgret is installed there (default: python3)
#   REHEARSAL_VENV   a virtual environment into which requirements.txt was just installed, to be used instead of an
#                    empty one: installing takes minutes and 6.5 GB
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
python=$(command -v "${PYTHON:-python3}")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
work=$(mktemp -d)
hub= app=
trap 'kill $hub $app 2>/dev/null || true; wait; rm -rf "$work" 2>/dev/null || { sleep 3; rm -rf "$work"; } || true' EXIT  # a process that still writes must not fail it
mkdir "$work/laptop" "$work/home"
say() { printf '%4d s  %s\n' "$SECONDS" "$1"; }

say "a Hub with a data set of the embedded pictures"
"$python" - "$work/hub/datasets/org/pictures" <<'PYTHON'
import sys
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image

folder, library = Path(sys.argv[1]), Path("examples/library")
paths = sorted(library.rglob("*.webp"))
labels = [path.relative_to(library).parts[0] for path in paths]
features = Features({"img": Image(), "label": ClassLabel(names=sorted(set(labels)))})
pictures = [{"bytes": path.read_bytes(), "path": None} for path in paths]
Dataset.from_dict({"img": pictures, "label": labels}, features=features).to_parquet(
    folder / "data" / "train-00000-of-00001.parquet"
)
PYTHON
"$python" -m tests.hub "$work/hub" >"$work/endpoint" &
hub=$!
until [ -s "$work/endpoint" ]; do sleep 0.1; done
export HF_ENDPOINT=$(cat "$work/endpoint") HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_PROGRESS_BARS=1
export GRADIO_ANALYTICS_ENABLED=False

say "deploy"
env HOME="$work/laptop" HF_HOME="$work/laptop/hf" HF_TOKEN=can-write PYTHONPATH="$project" \
  "$python" -m imgret.cli deploy org/space --library org/pictures --encoder starter

say "build: the Space's files"
env HOME="$work/laptop" HF_HOME="$work/laptop/hf" "$python" -c "
from huggingface_hub import snapshot_download
snapshot_download('org/space', repo_type='space', local_dir='$work/space')"
cd "$work/space"
if [ -n "${REHEARSAL_VENV:-}" ]; then
  venv=$(cd "$project" && cd "$REHEARSAL_VENV" && pwd)
else
  say "build: install requirements.txt"
  venv=$work/venv
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --requirement requirements.txt
fi

say "build: preload what README.md says"
unset HF_HUB_DISABLE_PROGRESS_BARS
# Not a function: that would run in a shell of its own in the background, and killing it leaves the app.
in_space=(env -i PATH="$venv/bin:$PATH" HOME="$work/home" HF_ENDPOINT="$HF_ENDPOINT" HF_HUB_DISABLE_XET=1)
"${in_space[@]}" python - <<'PYTHON'
from huggingface_hub import RepoCard, snapshot_download

for line in RepoCard.load("README.md").data["preload_from_hub"]:
    repo, *files = line.split()
    print("       ", snapshot_download(repo, allow_patterns=files[0].split(",") if files else None))
PYTHON

say "the Hub is gone"
kill "$hub" && wait "$hub" 2>/dev/null || true
hub=

say "start"
began=$(date +%s.%N)
port=$("$python" -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
"${in_space[@]}" SPACE_ID=org/space GRADIO_ANALYTICS_ENABLED=False GRADIO_SERVER_PORT="$port" \
  IMGRET_LIBRARY=org/pictures IMGRET_SPLIT=train IMGRET_ENCODER=starter IMGRET_INDEX=org/space-index \
  python app.py >"$work/log" 2>&1 &
app=$!
"${in_space[@]}" python - "$port" "$began" "$app" <<'PYTHON' || { cat "$work/log"; exit 1; }
import os, sys, time
from pathlib import Path

from gradio_client import Client, handle_file

address, began, app = f"http://127.0.0.1:{sys.argv[1]}", float(sys.argv[2]), int(sys.argv[3])
while True:
    os.kill(app, 0)  # fails once the app has ended
    try:
        client = Client(address, verbose=False)
        break
    except Exception:
        time.sleep(0.2)
found = client.predict(text="a red flower", k=3, api_name="/search_clip")
seconds = time.time() - began
library = client.predict(api_name="/library")
tiger = handle_file("examples/queries/tiger.webp")
pixels = client.predict(image=tiger, k=3, api_name="/search_pixels")
print(f"        first CLIP hit after {seconds:.1f} s: {found['hits'][0]['label']}; {library['origin']}")
assert library["origin"] == "the Hub's cache (org/space-index)", library["origin"]
assert (library["count"], library["notice"]) == (545, None), library
assert len(found["hits"]) == len(pixels["hits"]) == 3
assert all(Path(hit["image"]).stat().st_size for hit in found["hits"])
assert seconds < 15, f"the first CLIP hit took {seconds:.1f} s"
PYTHON

say "stop"
kill "$app"
wait "$app" 2>/dev/null || true
app=
say "the rehearsal went well"
