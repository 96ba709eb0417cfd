"""The road runs where Linux's own functions are missing; other systems are not at hand, so they are taken away."""

import json
import subprocess
import sys

import pytest

from tests.conftest import QUERIES, ROOT

TAKE_AWAY = """
import contextlib, fcntl, mmap, os, pathlib

for module, names in ((os, ("sched_getaffinity", "sched_setaffinity", "posix_fallocate", "nice", "fork")),
                      (mmap, ("MADV_DONTNEED",))):
    for name in names:
        delattr(module, name)

if {windows}:
    from imgret.files import durable
    durable.WINDOWS = True
    fsync, open_, rename, replace = os.fsync, os.open, os.rename, os.replace

    def in_use(path):
        path = os.path.realpath(path)
        with open("/proc/self/maps") as lines:
            files = [line.split(maxsplit=5)[-1].strip() for line in lines]
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # another thread has closed it
                files.append(os.readlink(f"/proc/self/fd/{{number}}"))
        return [name for name in files if name == path or name.startswith(path + os.sep)]

    def flush(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        fsync(handle)

    def no_folder(path, flags, *rest, **named):
        if os.path.isdir(path) and "dir_fd" not in named and not flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied", str(path))
        return open_(path, flags, *rest, **named)

    def refused(*_, **__):
        raise OSError(1314, "A required privilege is not held by the client")

    def only_if_free(function):
        def move(source, target, **named):
            for path in (source, target):
                if users := in_use(path):
                    raise PermissionError(13, f"in use: {{users}}", str(path))
            return function(source, target, **named)
        return move

    os.fsync, os.open, os.symlink, pathlib.Path.symlink_to = flush, no_folder, refused, refused
    os.rename, os.replace = only_if_free(rename), only_if_free(replace)
"""

ROAD = """
import json, sys
import imgret
from pathlib import Path

library, index, cache, picture = sys.argv[1:]
for limit in (3, None):  # the second build replaces the index of the first
    built = imgret.build_index(imgret.ImageLibrary.load(library, limit=limit), index, "starter", 16, cache=Path(cache))
    built.close()
retriever = imgret.Retriever(imgret.Index.open(index, cache=Path(cache)), cache=Path(cache))
hits = [retriever.by_pixels(picture, metric, 3) for metric in ("l1", "l2", "cosine", "correlation")]
hits += [retriever.by_clip(image=picture, k=3), retriever.by_clip(text="a bird", k=3)]
print(json.dumps([[hit.id for hit in found] for found in hits]))
"""


def road(code, small_library, index, cache):
    command = [sys.executable, "-c", code, small_library, index, cache, QUERIES / "tiger.webp"]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("system", ["macOS", "Windows"])
def test_the_road_runs_without_what_another_system_lacks(system, small_library, tmp_path, cache):
    here = road(ROAD, small_library, tmp_path / "here", cache)
    there = road(TAKE_AWAY.format(windows=system == "Windows") + ROAD, small_library, tmp_path / "there", cache)
    assert there == here
