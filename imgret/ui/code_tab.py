"""The tab for programmers: what to write in a program to ask this demo."""

import gradio as gr

from imgret.ui.localized import Spoken
from imgret.ui.mcp_tools import AVAILABLE
from imgret.ui.tab import QUIETLY

# Where Gradio says that its page is served: the address of the visitor's request, with a proxy's path.
ADDRESS = "() => window.gradio_config.root"
LOCAL = "http://127.0.0.1:7860"

PYTHON = """\
from gradio_client import Client, handle_file

client = Client("{address}")
found = client.predict(text="a guitar", k=5, api_name="/search_clip")
for hit in found["hits"]:
    print(hit["rank"], hit["id"], hit["caption"], round(hit["score"], 3), hit["image"])

picture = handle_file(found["hits"][0]["image"])  # or a file of yours: handle_file("photo.jpg")
found = client.predict(image=picture, metric="l2", k=5, api_name="/search_pixels")
print(found["method"], [hit["id"] for hit in found["hits"]])
for found in client.predict(image=picture, k=3, api_name="/compare"):
    print(found["method"], [hit["id"] for hit in found["hits"]])
print(client.predict(api_name="/library")["count"], "pictures")
"""

JAVASCRIPT = """\
import {{ Client }} from "@gradio/client";

const client = await Client.connect("{address}");
let {{ data: [found] }} = await client.predict("/search_clip", {{ text: "a guitar", k: 5 }});
for (const hit of found.hits) console.log(hit.rank, hit.id, hit.caption, hit.score, hit.image.url);

const image = await (await fetch(found.hits[0].image.url)).blob(); // or a File that a visitor chose
({{ data: [found] }} = await client.predict("/search_pixels", {{ image, metric: "l2", k: 5 }}));
console.log(found.method, found.hits.map((hit) => hit.id));
"""

CURL = """\
# One request asks, a second one waits for the answer.
EVENT=$(curl -s {address}/gradio_api/call/v2/search_clip -H "Content-Type: application/json" \\
  -d '{{"text": "a guitar", "k": 5}}' | cut -d '"' -f 4)
curl -s {address}/gradio_api/call/search_clip/$EVENT | tee found.txt

# A picture is uploaded first: here that of the first hit, or a file of yours.
curl -s -o picture.webp "$(grep -o '"url": "[^"]*"' found.txt | head -n 1 | cut -d '"' -f 4)"
FILE=$(curl -s {address}/gradio_api/upload -F files=@picture.webp | cut -d '"' -f 2)
EVENT=$(curl -s {address}/gradio_api/call/v2/search_pixels -H "Content-Type: application/json" \\
  -d '{{"image": {{"path": "'$FILE'", "meta": {{"_type": "gradio.FileData"}}}}, "metric": "l2", "k": 5}}' \\
  | cut -d '"' -f 4)
curl -s {address}/gradio_api/call/search_pixels/$EVENT
"""

MCP = """\
{{
  "mcpServers": {{
    "imgret": {{
      "url": "{address}/gradio_api/mcp/"
    }}
  }}
}}
"""


def snippets(address: str) -> dict[str, str]:
    """Programs that ask the demo at `address` and run as they stand, by the name of their language; "json" is the
    configuration of an MCP client.
    """
    codes = {"python": PYTHON, "javascript": JAVASCRIPT, "shell": CURL, "json": MCP}
    return {language: code.format(address=address.rstrip("/")).rstrip("\n") for language, code in codes.items()}


class CodeTab:
    """The snippets, with the address that the visitor sees the page at."""

    name = "code"

    def __init__(self, spoken: Spoken) -> None:
        labels = {"python": "Python", "javascript": "JavaScript", "shell": "curl", "json": "MCP"}
        codes = []
        with spoken(gr.Tab, {"label": lambda words: words.code_tab}, id=self.name) as self.tab:
            spoken(gr.Markdown, {"value": lambda words: words.programs})
            for language, code in snippets(LOCAL).items():
                if language == "json":
                    spoken(gr.Markdown, {"value": lambda words: words.programs_mcp}, visible=AVAILABLE)
                codes.append(
                    gr.Code(
                        code,
                        language=None,  # the colours of Gradio's editor are too faint for WCAG AA
                        label=labels[language],
                        interactive=False,
                        lines=1,
                        show_line_numbers=False,
                        wrap_lines=True,
                        elem_id=f"code-{language}",
                        elem_classes="program",
                        visible=language != "json" or AVAILABLE,
                        buttons=["copy"],
                    )
                )
            address = gr.Textbox(visible="hidden")

            def show(address: str) -> list[str]:
                return list(snippets(address).values())

            self.tab.select(show, address, codes, js=ADDRESS, **QUIETLY)
