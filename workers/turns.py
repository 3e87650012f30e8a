"""What is around every turn of a job: its name in the log, its time in the metrics, its span."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from app import logs, metrics
from app.traces import TRACES

Context = TypeVar("Context")
Turn = Callable[[Context, str, str], Awaitable[None]]


def told(job: Turn[Context]) -> Callable[[dict[Any, Any], str, str], Awaitable[None]]:
    """`job`, as arq is to call it. Its name stays what it was."""
    name = job.__name__

    @wraps(job)
    async def turn(ctx: dict[Any, Any], workspace_id: str, about: str) -> None:
        job_id = str(ctx.get("job_id", ""))
        with logs.about(job=name, job_id=job_id), metrics.worked(name), TRACES.span(f"job {name}", job_id=job_id):
            await job(cast(Context, ctx), workspace_id, about)

    return turn
