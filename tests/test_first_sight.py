"""The request of the page is known while its configuration is made, and no other one."""

import asyncio

import pytest

from imgret.ui import first_sight
from imgret.ui.first_sight import RememberVisit


@pytest.mark.parametrize(
    ("path", "root", "of_page"),
    [
        ("/", "", True),
        ("/imgret/", "/imgret", True),
        ("/imgret", "/imgret", True),
        ("/config", "", False),
        ("/imgret/config", "/imgret", False),
        ("/gradio_api/queue/join", "", False),
    ],
)
def test_the_page_is_known_by_its_path_also_behind_a_proxy(path, root, of_page):
    seen = []

    async def app(scope, receive, send):
        seen.append(first_sight._visit.get())

    scope = {"type": "http", "path": path, "root_path": root, "headers": [], "query_string": b"lang=vi"}
    asyncio.run(RememberVisit(app)(scope, None, None))
    assert [visit is not None for visit in seen] == [of_page]
    assert first_sight._visit.get() is None
