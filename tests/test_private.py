"""Nothing leaves the machine: each way to use imgret runs in a network of its own, and all its connects are traced."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from imgret.privacy import OPT_OUTS
from tests.conftest import LIBRARY

ROOT = Path(__file__).parent.parent
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""
SEARCH = """
import imgret
with_index = imgret.Retriever(imgret.Index.open(sys.argv[2]))
with_index.by_clip(text="a tiger")
with_index.by_pixels(sys.argv[1] + "/a/0.png")
"""
WAYS = {
    "build": """
import imgret
imgret.build_index(imgret.ImageLibrary.load(sys.argv[1]), sys.argv[2] + "-new")
""",
    "search": SEARCH,
    "course": """
import imgret
imgret.get_l1_score(sys.argv[1], sys.argv[1] + "/a/0.png")
imgret.get_single_image_embedding(sys.argv[1] + "/a/0.png")
""",
    "export": """
import imgret
from pathlib import Path
from imgret.encoders import export_encoder, load_encoder
from PIL import Image
from tests.models import small_model_folder
folder = Path(sys.argv[2] + "-model")
folder.mkdir()
model = load_encoder(small_model_folder(folder, "clip", []))
export_encoder(model, Path(sys.argv[2] + "-exported"), [Image.new("RGB", (9, 9))], ["a text"])
""",
    "parquet": """
import imgret, datasets
table = datasets.Dataset.from_dict({"image": [sys.argv[1] + "/a/0.png"]}).cast_column("image", datasets.Image())
table.to_parquet(sys.argv[2] + ".parquet")
assert len(list(imgret.ImageLibrary.load(sys.argv[2] + ".parquet"))) == 1
""",
    "serve": """
import os, threading, urllib.request
os.environ |= {"IMGRET_INDEX": sys.argv[2], "IMGRET_LIBRARY": sys.argv[1], "GRADIO_SERVER_PORT": "7990"}
def ask():
    import time
    for _ in range(300):
        time.sleep(0.2)
        try:
            if b"ready" in urllib.request.urlopen("http://127.0.0.1:7990/gradio_api/health").read():
                break
        except OSError:
            pass
    else:
        os._exit(3)
    time.sleep(12)  # ONNX Runtime would look up its server about now
    os._exit(0)
threading.Thread(target=ask).start()
import runpy
runpy.run_path("app.py", run_name="__main__")
""",
    "ray": """
import imgret
from imgret.build.ray import on_ray
imgret.build_index(imgret.ImageLibrary.load(sys.argv[1]), sys.argv[2] + "-ray", engine=on_ray())
""",
}

pytestmark = pytest.mark.skipif(
    not (shutil.which("strace") and shutil.which("unshare")), reason="needs strace and unshare"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "library"
    for number, path in enumerate(sorted(LIBRARY.rglob("*.webp"))[:8]):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def index(library):
    from imgret import ImageLibrary, build_index

    build_index(ImageLibrary.load(library), library.parent / "index").close()
    return library.parent / "index"


def connects(code, library, index, tmp_path, environment=None):
    """Where a process and its children wanted to connect to in a network that has only a loopback."""
    trace = tmp_path / "trace"
    # Nothing else of this environment: ONNX Runtime is silent where a variable names a service that runs tests.
    names = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    names |= {"HF_HUB_OFFLINE": "0", "XDG_CACHE_HOME": str(tmp_path / "xdg"), "PYTHONPATH": str(ROOT)}
    names |= environment or {}
    command = ["unshare", "-rn", sys.executable, "-c", LOOPBACK_UP]
    command += ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace)]
    command += [sys.executable, "-c", "import sys\n" + code, str(library), str(index)]
    ran = subprocess.run(command, env=names, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if "unshare: " in ran.stderr:
        pytest.skip(ran.stderr.strip())
    assert ran.returncode == 0, ran.stderr[-2000:]
    text = trace.read_text(errors="replace")
    found = re.findall(r'sa_family=AF_INET6?, [^}]*?(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]*)', text)
    away = {
        address
        for address in found
        if not address.startswith("127.") and address not in ("::1", "0.0.0.0", "::", "::ffff:127.0.0.1")
    }
    return away | set(re.findall(r"htons\(53\)", text)) | {str(path) for path in tmp_path.rglob("*.onnxruntime*")}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_sent_anywhere(way, library, index, tmp_path):
    if way == "ray":
        pytest.importorskip("ray")
    assert connects(WAYS[way], library, index, tmp_path) == set()


def test_what_the_libraries_would_send_is_seen_by_this_test(library, index, tmp_path):
    asked = "import time" + SEARCH + "\ntime.sleep(12)"
    assert connects(asked, library, index, tmp_path, dict.fromkeys(OPT_OUTS, "0"))
