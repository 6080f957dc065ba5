"""The servers behind the apps while they run: who they are, who is up, and what is said about it.

    server.py   an upstream of the configuration as the engine and the checks take it
    pool.py     the servers of one app: they come and go with the answers for names, and with checks
    watch.py    what has changed since the last look, as events
    service.py  all pools, with the look-ups and the checks that drive them
"""

from lbctl.upstreams.pool import Pool
from lbctl.upstreams.service import Upstreams

__all__ = ["Pool", "Upstreams"]
