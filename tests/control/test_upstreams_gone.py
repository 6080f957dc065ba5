"""What is said of upstreams that a name brings and takes away while checks go on."""

from __future__ import annotations

import pytest
from kit.alerting import Said

from lbctl import config
from lbctl.alerts.kinds import Kind, Subject
from lbctl.alerts.once import Once
from lbctl.names import Found
from lbctl.upstreams.pool import Pool
from lbctl.upstreams.watch import Watch

ONE, OTHER = "127.0.0.1:1", "127.0.0.2:1"


class Told:
    """Takes alerts, and keeps those that are worth a delivery."""

    def __init__(self) -> None:
        self.kinds: list[tuple[Kind, object]] = []
        self._once = Once(min_interval=0.0)

    def __call__(self, kind: Kind, subject: Subject, message: str, **fields: object) -> None:
        if self._once.take(kind, subject, message, 0.0) is not None:
            self.kinds.append((kind, fields.get("upstream")))


@pytest.fixture
def pool() -> Pool:
    """One app, whose one name stands for nothing yet."""
    app = {"listen": "127.0.0.1:0", "plaintext": True, "upstreams": [{"dns": "web.internal", "port": 1}]}
    built = config.build({"version": 1, "apps": {"web": app}})
    return Pool("web", built.apps["web"], None, drain_timeout=1.0)


def answer(pool: Pool, *addresses: str) -> None:
    pool.answer(0, [Found(address, None) for address in addresses])


def fails(watch: Watch, pool: Pool, *, up: bool = False) -> None:
    """A check of the first one; `up`: it is not the last that it takes."""
    watch.checked(pool, ONE, up=up, passed=False, message="1 check failed: refused")


def test_trouble_ends_with_the_upstream_and_is_news_when_it_is_back(pool: Pool) -> None:
    said, told = Said(), Told()
    watch = Watch(said, told)
    for _ in range(2):
        answer(pool, ONE, OTHER)
        watch.look([pool])
        fails(watch, pool)
        answer(pool, OTHER)
        pool.sweep()
        watch.look([pool])
    assert told.kinds == [("upstream_down", ONE), ("upstream_recovered", ONE)] * 2
    assert [fields["state"] for _, fields in said.events] == ["DOWN"] * 2


def test_a_failed_check_is_no_recovery(pool: Pool) -> None:
    """A name leaves it out and has it again at once: its checks begin anew, and the first ones fail."""
    said, told = Said(), Told()
    watch = Watch(said, told)
    answer(pool, ONE, OTHER)
    fails(watch, pool)
    answer(pool, OTHER)
    answer(pool, ONE, OTHER)
    fails(watch, pool, up=True)
    assert pool.states()[ONE][0] == "down"
    assert [fields["state"] for _, fields in said.events] == ["DOWN"]
    watch.checked(pool, ONE, up=True, passed=True, message="1 check passed")
    assert pool.states()[ONE][0] == "up"
    assert told.kinds == [("upstream_down", ONE), ("upstream_recovered", ONE)]
