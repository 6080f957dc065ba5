"""Fixtures for every test; what they give is in tests/kit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import pytest
from kit.leaks import check_rest, core_threads, descriptors, wait_for_descriptors, wait_for_threads

T = TypeVar("T")

BALANCERS = pytest.StashKey[list[Any]]()
RECORDS_SHOWN = 20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails tells what its balancers wrote down: most often the reason is there."""
    report = yield
    if report.failed:
        for balancer in item.stash.get(BALANCERS, []):
            lines = [str(record) for record in balancer.records.all()[-RECORDS_SHOWN:]]
            report.sections.append(("the last records", "\n".join(lines)))
            report.sections.append(("still counted", str(balancer.held())))
    return report


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The session's certificates (kit.pki.Pki)."""
    from kit.pki import Pki

    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After every test the descriptors are back at the baseline and the threads of lbcore gone."""
    before = descriptors()
    threads = core_threads()
    yield
    if descriptors() > before:
        gc.collect()  # what a test left to the collector is not a leak of the engine
        wait_for_descriptors(before)
    if core_threads() != threads:
        wait_for_threads()


@pytest.fixture
def keep() -> Iterator[Callable[[T], T]]:
    """Takes things that have ``close()`` and closes them after the test, the last one first."""
    kept: list[Any] = []

    def add(thing: T) -> T:
        kept.append(thing)
        return thing

    yield add
    for thing in reversed(kept):
        thing.close()


@pytest.fixture
def balance(pki: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes a kit.balancer.Balancer. After the test each one must come to hold nothing by itself, and its
    workers to rest, before it is stopped."""
    from kit.balancer import Balancer

    made: list[Balancer] = []
    request.node.stash[BALANCERS] = made

    def make(*upstreams: Any, **options: Any) -> Balancer:
        balancer = Balancer(pki, *upstreams, **options)
        made.append(balancer)
        return balancer

    yield make
    try:
        running = [balancer for balancer in made if balancer.engine.running]
        for balancer in running:
            balancer.wait_quiet()
        if running:
            check_rest([balancer.engine for balancer in running])
    finally:
        for balancer in made:
            balancer.close()
