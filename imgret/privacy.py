"""Turns off the telemetry of the libraries that imgret uses, before any of them is imported."""

import os

OPT_OUTS = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime would keep a device id and a queue of events, and look up its server
    "ANONYMIZED_TELEMETRY": "False",  # Chroma
    "GRADIO_ANALYTICS_ENABLED": "False",  # Gradio, which would also ask for its latest version
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers and datasets
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray
    "DO_NOT_TRACK": "1",
}
"""Environment variables, so that child processes and Ray's workers have them, too."""


def opt_out() -> None:
    """Sets each variable that the environment does not set itself."""
    for name, value in OPT_OUTS.items():
        os.environ.setdefault(name, value)
