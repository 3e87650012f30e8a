"""The list of tests, and how one is run."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from time import monotonic

from killtest import deaths, outages, steering
from killtest.audit import Verdict
from killtest.forms import Form
from killtest.pushes import push_blast
from killtest.yard import Yard

Test = Callable[[Yard, Form], Awaitable[Verdict]]


def over_push(test: Callable[..., Awaitable[Verdict]], name: str) -> Test:
    """A test of mail for push notifications. They go again where a phone shows two as one, so none is in doubt."""

    async def run(yard: Yard, form: Form) -> Verdict:
        verdict = await test(yard, form, name=name, over=push_blast)
        verdict.bound = 0
        verdict.require(verdict.in_doubt == 0, f"{verdict.in_doubt} in doubt, though each has a tag")
        return verdict

    return run


FORMS: dict[str, tuple[Test, Form, Form]] = {
    "T-1": (deaths.killed, Form(10_000, 20, workers=4, rate=150), Form(300, 2, rate=20, spread=0.05)),
    "T-2": (deaths.stopped, Form(10_000, 20, workers=3, rate=30, spread=0.05), Form(300, 2, rate=6, spread=0.04)),
    "T-3": (outages.postgres_restarted, Form(6_000, 10, rate=100), Form(400, 2, rate=12, spread=0.06)),
    "T-4": (
        outages.valkey_lost,
        Form(4_000, 10, rate=100, away_s=15.0),
        Form(400, 2, rate=12, spread=0.06, away_s=5.0),
    ),
    "T-5": (deaths.taken_over, Form(2_000, 1, rate=40), Form(300, 1, rate=30)),
    "T-6": (deaths.held_up, Form(1_000, 2), Form(200, 1, rate=30)),
    "T-7": (steering.steered, Form(3_000, 50, rate=25, spread=0.3), Form(300, 3, rate=15, spread=0.05)),
    "T-8": (steering.started_once, Form(50, 10), Form(20, 2)),
    "T-9": (steering.changed_underneath, Form(3_000, 12, rate=40, spread=0.5), Form(400, 4, rate=15, spread=0.1)),
    "P-1": (over_push(deaths.killed, "P-1"), Form(10_000, 20, workers=4, rate=150), Form(200, 2, rate=20, spread=0.05)),
    "P-2": (over_push(deaths.stopped, "P-2"), Form(10_000, 20, workers=3, rate=30, spread=0.05), Form(200, 1, rate=12)),
    "P-3": (
        over_push(outages.postgres_restarted, "P-3"),
        Form(6_000, 10, rate=100),
        Form(300, 2, rate=12, spread=0.06),
    ),
    "P-6": (over_push(deaths.held_up, "P-6"), Form(1_000, 2), Form(200, 1, rate=30)),
}
"""Each test with its long form and its short one."""


def run_one(yard: Yard, name: str, *, short: bool) -> Verdict:
    """Run a test to its end. What keeps it from its end is a breach too."""
    test, long_form, short_form = FORMS[name]
    began = monotonic()

    async def run() -> Verdict:
        return await test(yard, short_form if short else long_form)

    try:
        verdict = asyncio.run(run())
    except Exception as trouble:
        # Whatever it is, the other tests go on.
        yard.say(traceback.format_exc())
        verdict = Verdict(name, breaches=[f"{type(trouble).__name__}: {trouble}"])
    verdict.seconds = monotonic() - began
    return verdict
