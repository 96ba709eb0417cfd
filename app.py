"""The demo: the settings of the environment, a start in the background, the page."""

import logging

from imgret.settings import Settings
from imgret.startup import Start, prepare_in_steps
from imgret.ui.page import build_page, launch

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
logging.getLogger("imgret").setLevel(logging.INFO)
settings = Settings.read()
start = Start(lambda progress: prepare_in_steps(settings, progress))
demo = build_page(start, settings)

if __name__ == "__main__":
    launch(demo, start, settings)
