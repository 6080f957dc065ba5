"""A RateLimitManager without any socket: jobs of a thread pool, at most 4 at once and 100 a second for each
of two customers, and at most 6 at once for both together.

    python docs/examples/limiter_alone.py
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import lbcore

both = lbcore.RateLimitManager("both", max_open=6, scope="global")
customers = {
    name: lbcore.RateLimitManager(name, max_open=4, rate=100, burst=20, parent=both) for name in ("a", "b")
}
outcomes: Counter[str] = Counter()


def job(number: int) -> str:
    limits = customers["ab"[number % 2]]
    admission = limits.connection_opened()
    if not admission:
        return f"refused: {admission.limit} of {admission.name}"
    try:
        time.sleep(0.002)  # the work
        return f"done for {limits.name}"
    finally:
        limits.connection_closed()


with ThreadPoolExecutor(8) as pool:
    outcomes.update(pool.map(job, range(400)))
for outcome, count in sorted(outcomes.items()):
    print(f"{count:4} {outcome}")
assert both.open == 0
assert both.admitted == outcomes["done for a"] + outcomes["done for b"]
