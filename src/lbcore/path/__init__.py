"""The journey of a connection, one stage per file, in this order:

1. accept        take sockets, refuse above the caps, hand over to the least loaded worker
2. handshake     a PROXY header, where one is due; drive TLS 1.3 until it is done or late
3. authenticate  the verified chain: leaf, issued directly by the one CA, fit for a client
4. authorize     native table, cached verdict, or park the connection and ask Python
5. limit         open connections and opening rate: the client's, then the application's
6. pick          least connections among the upstreams in the pool; takes the in-flight count
7. dial          non-blocking connect; on failure back to pick, bounded
8. forward       both directions, half-close kept, copied or spliced
9. close         the only place that closes, releases and accounts

The order is carried out in worker.pyx (run_stage); no stage calls the next one.
"""
