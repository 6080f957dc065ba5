"""Unit tests of a policy, in no time: the limits and the picking of the real thing, on a clock moved by hand.

    pytest docs/examples/test_my_limits.py
"""

import lbcore

BATCH = lbcore.LimitClass(max_open=3, window=(5, 10.0))


def test_a_batch_client_gets_five_connections_in_any_ten_seconds() -> None:
    clock = lbcore.ManualClock()
    app = lbcore.Application("orders", [lbcore.UpstreamServer("10.0.1.11:5432")])
    day = lbcore.Simulation(app, clock=clock)
    batch = BATCH.manager("batch", clock=clock)
    opened = []
    for _ in range(24 * 3600):  # a connection every second, for a day
        connection = day.open(batch)
        if connection.state == "open":
            opened.append(clock.now)
            connection.close()
        else:
            assert connection.reason == "window"
        day.advance(1.0)
    assert len(opened) == 24 * 360 * 5
    assert all(later - earlier >= 10.0 for earlier, later in zip(opened, opened[5:], strict=False))


def test_nobody_waits_for_an_upstream_that_is_down() -> None:
    clock = lbcore.ManualClock()
    good, bad = lbcore.UpstreamServer("10.0.1.11:5432"), lbcore.UpstreamServer("10.0.1.12:5432")
    app = lbcore.Application("orders", [good, bad], passive_failures=3, passive_eject=10.0)
    hour = lbcore.Simulation(app, clock=clock, seed=7)
    hour.fail(bad)
    connections = [hour.open() for _ in range(100)]
    assert {connection.upstream for connection in connections} == {good}
    assert hour.ejected(bad)
    assert bad.picked == 3
