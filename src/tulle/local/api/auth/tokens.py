"""ServiceAccount tokens: JSON Web Tokens that the API signs (ES256) and later recognises.

Only this algorithm and this key are accepted; what the token's header says about them is compared, never believed.
"""

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tulle.clock import Clock
from tulle.local.api.auth.users import User, service_account_user
from tulle.local.api.objects import Obj, lookup
from tulle.local.api.store import Store

__all__ = ["ISSUER", "MAX_SECONDS", "MIN_SECONDS", "TokenAuthority", "VerifiedToken"]

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Issuer of the tokens and the audience meant when a request names none: the API itself."""

MIN_SECONDS, MAX_SECONDS = 600, 1 << 32
MAX_TOKEN = 16 * 1024
"""Bytes of a token that are looked at."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that is valid now, its user, and those of its audiences that were asked for."""

    user: User
    audiences: tuple[str, ...]


class TokenAuthority:
    """Signs and checks tokens against the ServiceAccounts and pods in the store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashes.Hash(hashes.SHA256())
        digest.update(public)
        self._key_id = _encode(digest.finalize()[:16])

    def issue(
        self, account: Obj, audiences: Sequence[str], seconds: int, bound: Obj | None = None
    ) -> tuple[str, int]:
        """Return a token for a ServiceAccount and the Unix time at which it ends.

        `bound`: the pod (or other object) with which the token lives and dies.
        """
        now = int(self._clock.now().timestamp())
        namespace, name = account["metadata"]["namespace"], account["metadata"]["name"]
        private: Obj = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        }
        if bound is not None:
            private[bound["kind"].lower()] = {
                "name": bound["metadata"]["name"],
                "uid": bound["metadata"]["uid"],
            }
        claims = {
            "aud": list(audiences) or [ISSUER],
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": secrets.token_hex(16),
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "kubernetes.io": private,
        }
        head = {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}
        body = f"{_encode(msgspec.json.encode(head))}.{_encode(msgspec.json.encode(claims))}"
        r, s = utils.decode_dss_signature(self._key.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{body}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}", now + seconds

    def verify(self, token: str, audiences: Sequence[str] = ()) -> VerifiedToken | str:
        """Return the token's user, or why the token is not accepted.

        `audiences`: the ones of which the token must have one; none: the API's own.
        """
        claims = self._claims(token)
        if isinstance(claims, str):
            return claims
        now = self._clock.now().timestamp()
        if not isinstance(claims.get("exp"), int) or claims["exp"] <= now:
            return "token has expired"
        if not isinstance(claims.get("nbf"), int) or claims["nbf"] > now + 1:
            return "token is not valid yet"
        wanted = tuple(audiences) or (ISSUER,)
        common = tuple(audience for audience in wanted if audience in (claims.get("aud") or ()))
        if not common:
            return f"token audiences {claims.get('aud')} is invalid for the target audiences {list(wanted)}"
        private = claims.get("kubernetes.io") or {}
        namespace = str(private.get("namespace"))
        account = self._living("serviceaccounts", namespace, private.get("serviceaccount"))
        if account is None:
            return "service account does not exist any more"
        extra: dict[str, tuple[str, ...]] = {
            "authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti')}",)
        }
        pod = private.get("pod")
        if pod is not None:
            bound = self._living("pods", namespace, pod)
            if bound is None:
                return "the pod that the token is bound to does not exist any more"
            extra["authentication.kubernetes.io/pod-name"] = (str(pod["name"]),)
            extra["authentication.kubernetes.io/pod-uid"] = (str(pod["uid"]),)
            node = lookup(bound, ("spec", "nodeName"))
            if node:
                extra["authentication.kubernetes.io/node-name"] = (str(node),)
        secret = private.get("secret")
        if secret is not None and self._living("secrets", namespace, secret) is None:
            return "the secret that the token is bound to does not exist any more"
        name, uid = account["metadata"]["name"], account["metadata"]["uid"]
        return VerifiedToken(service_account_user(namespace, name, uid, extra), common)

    def _living(self, resource: str, namespace: str, reference: Any) -> Obj | None:
        if not isinstance(reference, dict):
            return None
        record = self._store.get(resource, namespace, str(reference.get("name")))
        if record is None or record.obj["metadata"]["uid"] != reference.get("uid"):
            return None
        return record.obj

    def _claims(self, token: str) -> Obj | str:
        parts = token.split(".")
        if len(token) > MAX_TOKEN or len(parts) != 3:
            return "not a token of this API"
        try:
            head = msgspec.json.decode(_decode(parts[0]), type=dict[str, Any])
            signature = _decode(parts[2])
            if head.get("alg") != "ES256" or head.get("kid") != self._key_id or len(signature) != 64:
                return "not signed by this API"
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            signed = f"{parts[0]}.{parts[1]}".encode()
            self._key.public_key().verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
            claims: Obj = msgspec.json.decode(_decode(parts[1]), type=dict[str, Any])
        except InvalidSignature:
            return "invalid signature"
        except (ValueError, binascii.Error, msgspec.DecodeError):
            return "malformed token"
        return claims if claims.get("iss") == ISSUER else "issued by somebody else"

    def configuration(self) -> Obj:
        """Return the OpenID discovery document."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def key_set(self) -> Obj:
        """Return the public key as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        point = {"x": _encode(numbers.x.to_bytes(32, "big")), "y": _encode(numbers.y.to_bytes(32, "big"))}
        return {
            "keys": [
                {"use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self._key_id, **point}
            ]
        }


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
