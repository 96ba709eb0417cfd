"""A Chroma server of one's own, as a user starts it: `chroma run` on loopback."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import chromadb
from chromadb.config import Settings

from tests.conftest import free_port


class Chroma:
    """A server over a folder, which can be killed and started again over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, *options: str, **environment: str) -> Self:
        """Runs it, with these options instead of the folder and the port, if any are given."""
        command = [os.path.join(os.path.dirname(sys.executable), "chroma"), "run"]
        command += options or ["--path", str(self.folder), "--port", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=os.environ | environment, **quiet)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/api/v2/heartbeat", timeout=1).close()
                return self
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.05)
        raise AssertionError("chroma run does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self) -> Any:
        return chromadb.HttpClient("127.0.0.1", self.port, settings=Settings(anonymized_telemetry=False))

    def names(self) -> list[str]:
        return sorted(collection.name for collection in self.client().list_collections())
