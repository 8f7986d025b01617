"""HTTP/2 of the real sidecar, from outside: conformance suites, attacks, and peers that others have written.

`sidecar` runs one `tulle-proxy` whose inbound listener stands before `backend`, a small HTTP/2 application; `wire` is a
client that sends frames as they are told, right or wrong. What is held without a process and a socket (the codec against
its models) is in crates/http/tests.
"""
