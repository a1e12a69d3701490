"""The built-in engine's own process. Reads its orders as one JSON line on standard input.

When standard input ends, the agent is gone, and so is this process. xllamacpp is imported
here alone, so that the agent stays small.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

LISTENING = "WEFT-ENGINE-LISTENING "


def serve(orders: dict[str, Any]) -> None:
    """Load the model and serve it until the agent goes."""
    # The package's stubs are incomplete, so it is taken as untyped.
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.model.path = orders["model_file"]
    params.model_alias = {orders["model_name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = orders["port"]
    params.api_keys = [orders["api_key"]]
    params.n_parallel = orders["slots"]
    # llama.cpp divides the context by its slots.
    params.n_ctx = orders["context_tokens"] * orders["slots"]
    params.cpuparams.n_threads = orders["threads"]
    params.cpuparams_batch.n_threads = orders["threads"]
    params.endpoint_metrics = True
    params.ui = False
    if orders["gpu_layers"] is not None:
        params.n_gpu_layers = orders["gpu_layers"]
    server = xllamacpp.Server(params)  # returns when the model is loaded
    # One write, so that nothing of llama.cpp's own log comes between; before it, anything may.
    os.write(1, f"{LISTENING}{server.listening_address}\n".encode())
    threading.Event().wait()


def _end_with_the_agent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Run one engine."""
    orders = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    serve(orders)


if __name__ == "__main__":
    main()
