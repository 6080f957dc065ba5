"""The list of those who wait for the policy: any of them may leave at any time, and once."""

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st


@given(leavers=st.lists(st.none() | st.integers(0, 9), max_size=60))
def test_like_a_list(probes: ModuleType, leavers: list[int | None]) -> None:
    worker = probes.Worker()
    model: list[int] = []
    for leaver in leavers:
        if leaver is None:
            model.insert(0, worker.park())
        elif leaver < len(model):
            index = model.pop(leaver)
            worker.unpark(index)
            worker.unpark(index)  # harmless the second time
        assert worker.parked() == model
