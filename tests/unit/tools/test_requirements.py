"""What an explanation says of requirements beside authorization."""

from tulle.api import inbound_pb2
from tulle.tools.verdict import Client, Request, inbound_verdict


def test_an_authorized_request_is_told_what_it_would_also_need() -> None:
    message = inbound_pb2.Server(max_in_flight=5)
    everybody = message.authorizations.add()
    everybody.networks.add().net.ip.ipv4 = 0
    everybody.authentication.unauthenticated.SetInParent()
    http = message.protocol.http1
    http.routes.add().rules.add()
    http.local_rate_limit.total.requestsPerSecond = 7
    message.jwt.add(issuer="https://issuer", audiences=["voting"], jwks="{}")
    message.external_authorization.authority = "authz:9000"

    verdict = inbound_verdict(message, Client("10.0.0.1"), Request("GET", "voting", "/"))

    assert [(also.kind, also.needs) for also in verdict.also] == [
        ("token", "a token of issuer https://issuer for voting"),
        ("rate-limit", "at most 7 requests per second of all clients"),
        ("concurrency-limit", "one of 5 places at once"),
        ("external-authorization", "the leave of authz:9000"),
    ]
    assert verdict.problems == ("jwt[0].jwks.keys is missing",)
