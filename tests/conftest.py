"""Fixtures for every test; what they give is in tests/kit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from kit.leaks import core_threads, descriptors, wait_for_descriptors, wait_for_threads

T = TypeVar("T")


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
def balance(pki: Any) -> Iterator[Callable[..., Any]]:
    """Makes a kit.balancer.Balancer. After the test each one must come to hold nothing by itself,
    before it is stopped."""
    from kit.balancer import Balancer

    made: list[Balancer] = []

    def make(*upstreams: Any, **options: Any) -> Balancer:
        balancer = Balancer(pki, *upstreams, **options)
        made.append(balancer)
        return balancer

    yield make
    try:
        for balancer in made:
            if balancer.engine.running:
                balancer.wait_quiet()
    finally:
        for balancer in made:
            balancer.close()
