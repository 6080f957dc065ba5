"""Names as upstreams: looked up on a thread of their own, and again when the answer is too old.

    resolver = Resolver(on_answer, on_problem)
    resolver.start()
    resolver.add("metrics", NameOf("dns", "metrics.internal", 9091))
    resolver.stop()

What holds:

* `dns` asks for A and AAAA at once, and the answer is all addresses together. `srv` asks for the service
  and then for the addresses of its targets; those of the lowest priority that have any are used (RFC 2782).
* /etc/hosts comes first for `dns`, and a name it has is not asked for; `localhost` is the loopback
  (RFC 6761, 6.3). A target of an SRV record is asked of DNS alone.
* Name servers, search list, ndots and timeout are those of /etc/resolv.conf. As everywhere, the list is
  tried first for names without a dot and last for others; a name that ends in a dot is absolute. Both files
  are read again when they have changed.
* A name is asked again at the smallest TTL on the way to the answer, aliases included, from `TTL_MIN` to
  `TTL_MAX` seconds.
* An answer that fails, is empty or is NXDOMAIN changes nothing: the last good one holds, the operator hears
  of it once, and the name is asked again after 1 s, 2 s, 4 s up to 30 s. That may be earlier than a negative
  answer ages (RFC 2308); the name server remembers that itself. When A or AAAA alone fails, its last
  addresses stay beside the new ones of the other.

The path of a look-up: `resolver` has the thread, `watch` one name and what was told of it, `lookup` and
`hosts` what is asked in which order, `questions` one question to DNS, `places` what is kept of an answer.
dnspython is imported when a resolver starts; without it this package can be imported, and `missing` says so.
"""

from lbctl.config.host_names import parse_name
from lbctl.names.dependency import missing
from lbctl.names.resolver import Resolver
from lbctl.names.values import Found, NameOf

__all__ = ["Found", "NameOf", "Resolver", "missing", "parse_name"]
