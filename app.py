"""The demo: the settings of the environment, a start in the background, the page."""

import logging

import imgret.privacy  # noqa: F401 - before anything that sends

try:  # before torch, if anything brings that; Hugging Face installs it on its Spaces
    import spaces
except ImportError:
    spaces = None

from imgret.settings import Settings
from imgret.startup import Startup, prepare_in_steps, publish_built
from imgret.ui.page import build_page, launch

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("imgret").setLevel(logging.INFO)
settings = Settings.read()
start = Startup(
    lambda progress: prepare_in_steps(settings, progress),
    lambda ready, progress: publish_built(ready, settings, progress),
)
demo = build_page(start, settings)

if spaces is not None:

    @spaces.GPU  # type: ignore[untyped-decorator]
    def probe() -> None:
        """Nothing calls this. ZeroGPU ends an app in which no function asks for a GPU."""


if __name__ == "__main__":
    launch(demo, start, settings)
