"""Packages with known holes are not installed: the first version without each stands here (T-18)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    # CVE-2026-35523 and -35526 (subscriptions), CVE-2026-47706 and -47707 (limiters); 0.341.2 was looked through.
    "strawberry-graphql": (0, 341, 2),
    # CVE-2025-62727 (Range), CVE-2026-48710 and CVE-2026-54282 (paths out of Host).
    "starlette": (1, 3, 0),
    # CVE-2026-42561 (headers of parts).
    "python-multipart": (0, 0, 27),
    # CVE-2025-27516 (sandbox).
    "jinja2": (3, 1, 6),
    # GHSA-v3q9-hj7j-63hq and GHSA-vxj7-4xrp-5vr4 (commands by CRLF, answers before STARTTLS).
    "aiosmtplib": (5, 1, 3),
    # CVE-2020-11010 (SQL).
    "tortoise-orm": (0, 16, 6),
    # Nesting that is bounded while it is parsed.
    "graphql-core": (3, 3, 0),
}
PINNED = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)


@pytest.mark.parametrize("file", ["requirements.lock", "requirements.production.lock"])
def test_no_package_is_below_the_version_that_closed_its_last_known_hole(file: str) -> None:
    locked = dict(PINNED.findall((ROOT / file).read_text()))
    assert {"starlette", "jinja2", "aiosmtplib"} <= locked.keys()
    below = {
        name: locked[name]
        for name, floor in FLOORS.items()
        if name in locked and tuple(int(part) for part in locked[name].split(".")[:3]) < floor
    }
    assert below == {}
