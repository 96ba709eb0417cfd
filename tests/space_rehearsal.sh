#!/usr/bin/env bash
# The life of a Space, with a Hub on loopback in the place of the real one, in the order in which the platform does it:
#
#   deploy    a free account is refused before anything is built; `imgret deploy` makes a Space with its index
#   build     the platform's commands with requirements.txt alone, in an empty environment: the short list is installed,
#             the whole one resolved; then each preload entry by `hf download`, then the Space's files
#   start     app.py with what the platform sets; gradio_client asks for the first hits. On ZeroGPU; then with no Hub
#   sleep     a Space without an index, with a secret that may write: the embedded library answers, its own is indexed
#             and published, and a start on an empty disk fetches it
#
# What only the real Hub can show: that `git push` refuses binary files outside of LFS, that volumes are mounted.
#
#   PYTHON           runs the Hub and what needs torch; imgret[build] is installed there (default: python3)
#   SPACE_PYTHON     the Space's Python (default: a python3.12, which the platform has, else PYTHON)
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
python=$(command -v "${PYTHON:-python3}")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
space_python=${SPACE_PYTHON:-}
for candidate in python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python; do
  [ -z "$space_python" ] && "$candidate" -c "" 2>/dev/null && space_python=$candidate
done
space_python=${space_python:-$python}
work=$(mktemp -d)
hub= app= gpu=
trap 'kill $hub $app $gpu 2>/dev/null || true; wait; rm -rf "$work" 2>/dev/null || { sleep 3; rm -rf "$work"; } || true' EXIT  # a process that still writes must not fail it
mkdir "$work/laptop" "$work/home" "$work/mounted"
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
on_laptop=(env HOME="$work/laptop" HF_HOME="$work/laptop/hf" PYTHONPATH="$project")

say "deploy: a free account hears of its ways on, and nothing was built"
if "${on_laptop[@]}" HF_TOKEN=free "$python" -m imgret deploy someone/space --library org/pictures --encoder starter \
  2>"$work/refusal"; then
  exit 1
fi
sed 's/^/        /' "$work/refusal"
grep -q "only for a paid plan" "$work/refusal"
[ ! -e "$work/laptop/.cache/imgret/indexes" ]

say "deploy: the Space and its index"
"${on_laptop[@]}" HF_TOKEN=can-write "$python" -m imgret deploy org/space --library org/pictures --encoder starter
"${on_laptop[@]}" "$python" -c "
from huggingface_hub import snapshot_download
snapshot_download('org/space', repo_type='space', local_dir='$work/space')"

say "build: the platform's packages, with $("$space_python" --version)"
cp "$work/space/requirements.txt" "$work/mounted"
venv=$work/venv
"$space_python" -m venv "$venv"
pip=("$venv/bin/pip" -qq --disable-pip-version-check)
"${pip[@]}" install datasets "huggingface-hub>=0.30" hf-transfer "protobuf<4" "click<8.1"
version=$(sed -n 's/^sdk_version: *//p' "$work/space/README.md")
platform=("gradio[oauth,mcp]==$version" "uvicorn>=0.14.0" "websockets>=10.4" spaces)
say "build: requirements.txt of a Space with an index, by the platform's command"
"${pip[@]}" install -r "$work/mounted/requirements.txt" "${platform[@]}"
megabytes=$(du -sm "$venv" | cut -f 1)
say "build: $megabytes MB installed, $("$venv/bin/pip" freeze | wc -l) packages"
[ "$megabytes" -lt 1500 ]
! "$venv/bin/python" -c "import torch" 2>/dev/null
say "build: the whole list resolves, too"
"${pip[@]}" install --dry-run --ignore-installed -r requirements.txt "${platform[@]}"

# Not a function: that would run in a shell of its own in the background, and killing it leaves the app.
in_space=(env -i PATH="$venv/bin:$PATH" HOME="$work/home" HF_ENDPOINT="$HF_ENDPOINT" HF_HUB_DISABLE_XET=1)
preload=$("$venv/bin/python" -c "
from huggingface_hub import RepoCard
print('\n'.join(RepoCard.load('$work/space/README.md').data['preload_from_hub']))")
[ -n "$preload" ]
while read -r entry; do
  say "build: hf download $entry"
  "${in_space[@]}" hf download $entry >/dev/null
done <<<"$preload"
say "build: the Space's files"
mv "$work/space" "$work/app"
cd "$work/app"

# start NAME VARIABLE=VALUE ...: runs app.py as the platform does; ask: its first hits and where they come from.
start() {
  port=$("$python" -c "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1])")
  began=$(date +%s.%N)
  "$@" SPACE_ID=org/space SPACE_HOST="127.0.0.1:$port" SYSTEM=spaces GRADIO_SSR_MODE=true \
    GRADIO_ANALYTICS_ENABLED=False GRADIO_SERVER_PORT="$port" python app.py >"$work/log" 2>&1 &
  app=$!
}
ask() {
  PYTHONPATH="$project" "$venv/bin/python" - "$port" "$began" "$app" "$@" <<'PYTHON' || { cat "$work/log"; exit 1; }
import os, sys, time
from pathlib import Path

from gradio_client import Client, handle_file

port, began, app, *expected = sys.argv[1:]
address = f"http://127.0.0.1:{port}"
while True:
    os.kill(int(app), 0)  # fails once the app has ended
    try:
        client = Client(address, verbose=False)
        break
    except Exception:
        time.sleep(0.2)
found = client.predict(text="a red flower", k=3, api_name="/search_clip")
print(f"        first CLIP hit after {time.time() - float(began):.1f} s: {found['hits'][0]['label']}")
tiger = handle_file("examples/queries/tiger.webp")
for wanted in expected:
    for _ in range(1200):
        os.kill(int(app), 0)
        library = client.predict(api_name="/library")
        if library["origin"].startswith(wanted):
            break
        time.sleep(0.25)
    print(f"        after {time.time() - float(began):.1f} s: {library['library']}, {library['origin']}")
    print(f"        {library['notice'] or 'no notice'}")
    assert library["origin"].startswith(wanted), library
    found = client.predict(text="a red flower", k=3, api_name="/search_clip")
    pixels = client.predict(image=tiger, k=3, api_name="/search_pixels")
    assert len(found["hits"]) == len(pixels["hits"]) == 3
    assert found["notice"] == pixels["notice"] == library["notice"]
    assert all(Path(hit["image"]).stat().st_size for hit in found["hits"])
assert (library["library"], library["count"], library["notice"]) == ("org/pictures", 545, None), library
PYTHON
}
stop() {
  kill "$app"
  wait "$app" 2>/dev/null || true
  app=
}
serves=(IMGRET_LIBRARY=org/pictures IMGRET_SPLIT=train IMGRET_ENCODER=starter)

say "start: with the index that was preloaded"
start "${in_space[@]}" "${serves[@]}" IMGRET_INDEX=org/space-index
ask "the Hub's cache (org/space-index)"
stop

say "start: on ZeroGPU, which ends an app without a function for a GPU"
"$venv/bin/python" - >"$work/device-api" <<'PYTHON' &
import http.server

class DeviceApi(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.path, flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), DeviceApi)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON
gpu=$!
until [ -s "$work/device-api" ]; do sleep 0.1; done
start "${in_space[@]}" "${serves[@]}" IMGRET_INDEX=org/space-index SPACES_ZERO_GPU=true \
  SPACES_ZERO_DEVICE_API_URL="http://127.0.0.1:$(head -1 "$work/device-api")"
ask "the Hub's cache (org/space-index)"
grep -q "/startup-report" "$work/device-api"
stop

say "sleep: a Space without an index makes one"
without=(env -i PATH="$(dirname "$python"):$PATH" HF_ENDPOINT="$HF_ENDPOINT" HF_HUB_DISABLE_XET=1 HF_TOKEN=can-write)
mkdir "$work/home-2"
start "${without[@]}" HOME="$work/home-2" "${serves[@]}" IMGRET_INDEX=org/second-index
ask "built" "built now, and published as org/second-index"
stop
say "sleep: after it, on an empty disk"
mkdir "$work/home-3"
start "${in_space[@]}" HOME="$work/home-3" HF_TOKEN=can-write "${serves[@]}" IMGRET_INDEX=org/second-index
ask "the Hub (org/second-index)"
stop

say "start: with the Hub gone"
kill "$hub" && wait "$hub" 2>/dev/null || true
hub=
start "${in_space[@]}" "${serves[@]}" IMGRET_INDEX=org/space-index
ask "the Hub's cache (org/space-index)"
stop
say "the rehearsal went well"
