"""The demo as a process of its own, for the benchmarks that ask it over HTTP."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EXPORTED = "import sys; from imgret.cli import main; sys.exit(main(sys.argv[1:]))"
TORCH = (
    """
import imgret.search
from imgret.encoders import load_encoder
imgret.search.load_encoder = lambda uri, exported: load_encoder(uri)
"""
    + EXPORTED
)


@dataclass(frozen=True)
class Demo:
    """A demo that answers on `address`; `page_s` is the time from the process's start to its first page."""

    address: str
    page_s: float
    pid: int
    started: float

    def age(self) -> float:
        """Seconds since the process was started."""
        return time.perf_counter() - self.started

    def resident_mb(self) -> float:
        return memory_mb(self.pid, "VmRSS")


def memory_mb(pid: int, what: str) -> float:
    """What the system says of a process's memory; "VmRSS" is all that is resident, "RssAnon" what is its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) / 1024


@contextmanager
def demo(index: Path, cache: Path, code: str = EXPORTED) -> Iterator[Demo]:
    """`imgret serve INDEX`, with the exported encoder or, by the code `TORCH`, with the original in torch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {"IMGRET_CACHE": str(cache), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-c", code, "serve", str(index), "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}") from None
                time.sleep(0.02)
        yield Demo(address, time.perf_counter() - started, process.pid, started)
    finally:
        process.terminate()
        process.wait(30)
