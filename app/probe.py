"""Asks the worker on this machine whether it is ready, as a container's health check does."""

import json
import urllib.error
import urllib.request

PATIENCE_S = 3.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""Where to ask a process that listens on all addresses."""


def missing_of_worker(host: str, port: int) -> list[str]:
    """What the worker that answers there lacks, as it says itself; `worker` when none answers in time."""
    url = f"http://{EVERYWHERE.get(host, host)}:{port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S):
            return []
    except urllib.error.HTTPError as refusal:
        missing: list[str] = json.loads(refusal.read())["missing"]
        return missing
    except OSError:
        return ["worker"]
