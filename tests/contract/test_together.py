"""Modules that share servers: one process of the suite runs all of their tests, or each would start servers anew."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from xdist.remote import Producer

from tests.conftest import TOGETHER, pytest_xdist_make_scheduler

ROOT = Path(__file__).parents[2]


class Process:
    """One of the suite that is given tests and runs none."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="one")
        self.given: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, tests: list[int]) -> None:
        self.given += tests

    def shutdown(self) -> None:
        self.shutting_down = True


def test_a_group_is_given_to_one_process(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytestconfig.option, "tx", ["2*popen"])
    scheduler = pytest_xdist_make_scheduler(pytestconfig, Producer("of a test", enabled=False))
    tests = [f"{module}::test[{number}]" for number in range(3) for modules in TOGETHER for module in modules]
    processes = [Process(), Process()]
    for process in processes:
        scheduler.add_node(process)
        scheduler.add_node_collection(process, tests)
    scheduler.schedule()
    done = [0, 0]
    while scheduler.has_pending:
        for number, process in enumerate(processes):
            if done[number] < len(process.given):
                scheduler.mark_test_complete(process, process.given[done[number]])
                done[number] += 1
    for modules in TOGETHER:
        group = {number for number, test in enumerate(tests) if test.partition("::")[0] in modules}
        assert [process for process in processes if group & set(process.given)] != processes


def test_whoever_shares_servers_of_blasts_is_in_a_group() -> None:
    grouped = {module for modules in TOGETHER for module in modules}
    assert [module for module in grouped if not (ROOT / module).is_file()] == []
    blasts = {str(file.relative_to(ROOT)): file.read_text() for file in (ROOT / "tests/blast").glob("test_*.py")}
    assert {name for name, text in blasts.items() if "yard: Yard" in text or "stack: Stack" in text} <= grouped
