"""The proxy API's messages, generated from proto/ by scripts/protos.sh: `from tulle.api import outbound_pb2`.

Only this file is written by hand: the paths of the gRPC methods. Servers and clients register them generically, with
bytes in and out, so that a message which many streams share is encoded once.
"""

from typing import Final

__all__ = [
    "DESTINATION_GET",
    "DESTINATION_GET_PROFILE",
    "IDENTITY_CERTIFY",
    "IDENTITY_WATCH_TRUST_ANCHORS",
    "INBOUND_GET_PORT",
    "INBOUND_WATCH_PORT",
    "OUTBOUND_GET",
    "OUTBOUND_WATCH",
    "TAP_OBSERVE",
]

DESTINATION_GET: Final = "/io.linkerd.proxy.destination.Destination/Get"
"""GetDestination → stream of Update."""
DESTINATION_GET_PROFILE: Final = "/io.linkerd.proxy.destination.Destination/GetProfile"
"""GetDestination → stream of DestinationProfile."""
IDENTITY_CERTIFY: Final = "/io.linkerd.proxy.identity.Identity/Certify"
"""CertifyRequest → CertifyResponse."""
IDENTITY_WATCH_TRUST_ANCHORS: Final = "/io.linkerd.proxy.identity.Identity/WatchTrustAnchors"
"""WatchTrustAnchorsRequest → stream of TrustAnchors."""
INBOUND_GET_PORT: Final = "/io.linkerd.proxy.inbound.InboundServerPolicies/GetPort"
"""PortSpec → Server."""
INBOUND_WATCH_PORT: Final = "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort"
"""PortSpec → stream of Server."""
OUTBOUND_GET: Final = "/io.linkerd.proxy.outbound.OutboundPolicies/Get"
"""TrafficSpec → OutboundPolicy."""
OUTBOUND_WATCH: Final = "/io.linkerd.proxy.outbound.OutboundPolicies/Watch"
"""TrafficSpec → stream of OutboundPolicy."""
TAP_OBSERVE: Final = "/io.linkerd.proxy.tap.Tap/Observe"
"""ObserveRequest → stream of TapEvent."""
