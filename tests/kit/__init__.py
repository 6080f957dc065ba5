"""What the tests are made of: certificates, upstreams, clients, a balancer, and waiting with a deadline.

Importable as ``kit`` (pytest's ``pythonpath``). Nothing here asserts what lbcore should do.
"""
