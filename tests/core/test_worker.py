"""What a worker asks of the TLS library before it runs."""

import errno
from types import ModuleType

import pytest

KIB = 1024


@pytest.mark.parametrize(("record", "call"), [(22, 16 * KIB), (2 * KIB, 0), (22, 1 << 40)])
def test_a_library_whose_records_do_not_fit_the_buffers_is_refused(
    probes: ModuleType, record: int, call: int
) -> None:
    assert probes.worker_for(record, call) == errno.EMSGSIZE
