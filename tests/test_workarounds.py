"""What docs/workarounds.md lists is still needed: each test fails once a dependency does without the workaround."""

import hashlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import chromadb
import gradio
import gradio.exceptions
import gradio.processing_utils
import gradio.routes
import huggingface_hub.hf_api
import huggingface_hub.utils
import pytest
from chromadb.config import Settings

from imgret.vectors.local_collection import COLLECTION, DATABASE
from tests.conftest import QUERIES, ROOT
from tests.test_hnsw_check import ALTERED, DIM, graph_of, write

PAGE = ROOT / "docs" / "workarounds.md"
WALK = f"""
import sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
try:
    client.get_collection("{COLLECTION}", embedding_function=None).query(query_embeddings=[[1.0] * {DIM}], n_results=5)
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection") / "whole"
    write(folder)
    return folder


def walk(folder):
    return subprocess.run([sys.executable, "-c", WALK, folder], capture_output=True, text=True, timeout=120)


def test_chroma_walks_a_graph_unchecked(collection, tmp_path):
    assert walk(shutil.copytree(collection, tmp_path / "whole")).returncode == 0
    altered = shutil.copytree(collection, tmp_path / "altered")
    ALTERED["a link to no node, late"][0](graph_of(altered))
    ALTERED["more links than there is room for"][0](graph_of(altered))
    assert walk(altered).returncode != 0  # an exception of Chroma's would be printed, and the process go on


def test_chroma_changes_a_collection_by_opening_it(collection, tmp_path):
    folder = shutil.copytree(collection, tmp_path / "opened")
    before = hashlib.sha256((folder / DATABASE).read_bytes()).digest()
    assert walk(folder).returncode == 0
    assert hashlib.sha256((folder / DATABASE).read_bytes()).digest() != before
    assert "read_only" not in inspect.signature(chromadb.PersistentClient).parameters


def test_chroma_s_client_has_no_time_out():
    assert not [name for name in inspect.signature(chromadb.HttpClient).parameters if "timeout" in name]
    assert not [name for name in Settings.model_fields if "client" in name and "timeout" in name]


def test_chroma_s_telemetry_is_on_unless_told_otherwise():
    assert Settings.model_fields["anonymized_telemetry"].default is True


def test_ray_asks_clouds_although_its_reports_are_turned_off():
    from ray.dashboard.modules.usage_stats.usage_stats_head import UsageStatsHead

    says = inspect.getsource(UsageStatsHead.run)
    assert says.index("get_cluster_config_to_report") < says.index("if not self.usage_stats_enabled")


def test_gradio_writes_type_stubs_while_it_is_imported():
    import gradio.component_meta

    assert "create_or_modify_pyi" in gradio.component_meta.ComponentMeta.__new__.__code__.co_names


def test_gradio_s_download_of_an_address_has_no_bound():
    source = (Path(gradio.__file__).parent / "processing_utils.py").read_text(encoding="utf-8")
    (download,) = re.findall(r"^async def async_ssrf_protected_download\((.*?)\) ->", source, re.S | re.M)
    assert re.findall(r"(\w+):", download) == ["url", "cache_dir"]


def test_gradio_s_file_route_takes_addresses():
    assert "is_http_url_like(path_or_url)" in inspect.getsource(gradio.routes)


def test_gradio_s_refusal_of_a_path_reaches_no_client():
    assert not issubclass(gradio.exceptions.InvalidPathError, gradio.Error)  # only those are told to a client
    assert "_check_allowed" in inspect.getsource(gradio.processing_utils.async_move_files_to_cache)


def test_gradio_lets_a_raw_request_name_any_path(monkeypatch):
    checked, processing = [], gradio.processing_utils
    monkeypatch.setattr(processing, "_check_allowed", lambda path, uploads: checked.append(path))
    path, block = str(QUERIES / "tiger.webp"), gradio.Image()
    processing.move_files_to_cache({"path": path}, block, check_in_upload_folder=True)
    assert checked == []
    processing.move_files_to_cache(
        {"path": path, "meta": {"_type": "gradio.FileData"}}, block, check_in_upload_folder=True
    )
    assert checked == [path]


def test_gradio_s_front_end_has_no_vietnamese():
    assets = [file.name for file in (Path(gradio.__file__).parent / "templates" / "frontend" / "assets").iterdir()]
    assert [name for name in assets if re.match(r"zh-CN-[\w-]+\.js$", name)]  # where its languages are
    assert not [name for name in assets if re.match(r"vi(-VN)?-[\w-]+\.js$", name)]


def test_the_hub_s_client_tries_again_where_there_is_no_hub():
    retries = inspect.signature(huggingface_hub.utils.http_backoff).parameters["max_retries"].default
    assert retries > 1


def test_the_hub_s_client_warns_of_arrow_files_in_a_model_repo():
    assert '(".arrow", ".parquet")' in inspect.getsource(huggingface_hub.hf_api.HfApi.create_commit)


def test_python_cannot_silence_warnings_for_a_single_thread():
    assert not getattr(sys.flags, "context_aware_warnings", False)


def test_the_page_has_a_row_for_each_of_these_tests():
    named = re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    written = [name for name, thing in globals().items() if name.startswith("test_") and inspect.isfunction(thing)]
    assert sorted(named) == sorted(set(written) - {"test_the_page_has_a_row_for_each_of_these_tests"})
