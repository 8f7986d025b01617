"""The ASGI application: who asks, may they, what do they want. Every error leaves as a Status object."""

import logging

import msgspec

from tulle.local.api import discovery, openapi
from tulle.local.api.api import Api
from tulle.local.api.auth.authentication import Authenticator
from tulle.local.api.auth.rbac import Attributes
from tulle.local.api.auth.users import User
from tulle.local.api.errors import (
    ApiError,
    bad_request,
    forbidden,
    method_not_allowed,
    no_such_resource,
    unauthorized,
)
from tulle.local.api.http.answers import Exchange, Receive, Scope, Send
from tulle.local.api.http.counting import Counts
from tulle.local.api.http.nodes import serve_socket, serve_stream
from tulle.local.api.http.request import Accepted, Query, ResourcePath, negotiate, parse_path, verb_of
from tulle.local.api.http.resources import ResourceRequest, serve_resource
from tulle.local.api.http.small import serve_review, serve_small
from tulle.local.api.registry import CREATE_ONLY

__all__ = ["App"]

log = logging.getLogger(__name__)

_PUBLIC = frozenset({"/version", "/livez", "/readyz", "/healthz"})
_STREAMS = frozenset({"exec", "log", "portforward", "proxy"})


class App:
    """Serves one Api."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._authenticator = Authenticator(api.tokens, api.policy)
        self._counts = Counts(api.store, api.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one WebSocket."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, self._api.registry)
        try:
            await self._answer(exchange)
        finally:
            self._counts.request(exchange.verb, exchange.group, exchange.plural, exchange.status)

    async def _answer(self, exchange: Exchange) -> None:
        scope = exchange.scope
        try:
            await self._serve(exchange)
        except ApiError as error:
            await exchange.refuse(error)
        except RecursionError:
            await exchange.refuse(bad_request("the request's document is nested too deeply"))
        except UnicodeError as error:
            await exchange.refuse(bad_request(f"the request is not UTF-8: {error}"))
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await exchange.refuse(
                ApiError(500, "InternalError", "Internal error occurred: see the log of tulle")
            )

    async def _serve(self, exchange: Exchange) -> None:
        scope = exchange.scope
        path, method = scope["path"], scope["method"]
        user = self._user(scope)
        query = Query(scope["query_string"])
        resource_path = parse_path(path)
        if resource_path is None:
            self._authorize_path(user, method, path)
            await self._document(exchange, path.rstrip("/") or "/", query)
            return
        verb = verb_of(method, resource_path, query.flag("watch"))
        exchange.verb, exchange.group, exchange.plural = verb, resource_path.group, resource_path.plural
        if (
            verb == "get"
            and resource_path.plural
            and resource_path.name
            and query.flag("watch")
            and not resource_path.subresource
        ):
            verb = "watch"
        exchange.verb = verb
        self._authorize(user, verb, resource_path)
        resource = self._api.registry.find(resource_path.group, resource_path.plural, resource_path.version)
        sub = resource_path.subresource
        if sub and not resource.has_subresource(sub, resource_path.version):
            raise no_such_resource()
        streaming = sub in _STREAMS
        accepted = Accepted() if streaming else negotiate(exchange.header(b"accept"))
        request = ResourceRequest(self._api, exchange, resource_path, query, accepted, user, verb, resource)
        if resource.plural in CREATE_ONLY:
            await serve_review(request)
        elif streaming:
            await serve_stream(request)
        elif sub and sub != "status":
            await serve_small(request)
        elif verb == "watch":
            self._counts.watches += 1
            try:
                await serve_resource(request)
            finally:
                self._counts.watches -= 1
        else:
            await serve_resource(request)

    def _user(self, scope: Scope) -> User:
        return self._authenticator.authenticate(scope["state"].get("client_certificate"), scope["headers"])

    def _authorize_path(self, user: User, method: str, path: str) -> None:
        if path.rstrip("/") in _PUBLIC or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return
        verb = method.lower()
        if user.groups == ("system:unauthenticated",):
            raise unauthorized()
        allowed, _ = self._api.policy.authorize(user, Attributes(verb, path=path))
        if not allowed:
            raise ApiError(403, "Forbidden", f'forbidden: User "{user.name}" cannot {verb} path "{path}"')

    def _authorize(self, user: User, verb: str, path: ResourcePath) -> None:
        if user.groups == ("system:unauthenticated",):
            raise unauthorized()
        namespace = path.namespace or (path.name if path.plural == "namespaces" and not path.group else "")
        wanted = Attributes(verb, path.group, path.plural, path.subresource, path.name, namespace)
        allowed, _ = self._api.policy.authorize(user, wanted)
        if allowed:
            return
        subject = f"{path.plural}/{path.subresource}" if path.subresource else path.plural
        scope = f'in the namespace "{path.namespace}"' if path.namespace else "at the cluster scope"
        why = f'User "{user.name}" cannot {verb} resource "{subject}" in API group "{path.group}" {scope}'
        raise forbidden(path.plural, path.group, path.name, why)

    async def _document(self, exchange: Exchange, path: str, query: Query) -> None:
        if exchange.scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed()
        registry = self._api.registry
        parts = path.strip("/").split("/")
        accept = exchange.header(b"accept")
        match parts:
            case ["version"]:
                await exchange.answer(discovery.version_info())
            case ["livez" | "readyz" | "healthz", *_]:
                await exchange.raw(b"ok", content_type=b"text/plain; charset=utf-8")
            case ["api" | "apis" as root]:
                if negotiate(accept).aggregated_discovery:
                    kind = b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                    await exchange.answer(
                        discovery.aggregated(registry, core=root == "api"), content_type=kind
                    )
                else:
                    old = discovery.api_versions() if root == "api" else discovery.group_list(registry)
                    await exchange.answer(old)
            case ["api", version]:
                await exchange.answer(discovery.resource_list(registry, "", version))
            case ["apis", group]:
                await exchange.answer(discovery.group(registry, group))
            case ["apis", group, version]:
                await exchange.answer(discovery.resource_list(registry, group, version))
            case ["openapi", "v2"]:
                if "proto-openapi" in accept:
                    kind = b"application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
                    await exchange.raw(openapi.swagger_protobuf(), content_type=kind)
                else:
                    await exchange.answer(openapi.swagger(registry))
            case ["openapi", "v3"]:
                await exchange.answer(openapi.group_versions(registry, registry.revision))
            case ["openapi", "v3", "api", version]:
                await exchange.answer(openapi.group_version(registry, "", version))
            case ["openapi", "v3", "apis", group, version]:
                await exchange.answer(openapi.group_version(registry, group, version))
            case ["metrics"]:
                kind = b"text/plain; version=0.0.4; charset=utf-8"
                await exchange.raw(self._counts.render().encode(), content_type=kind)
            case ["openid", "v1", "jwks"]:
                await exchange.answer(self._api.tokens.key_set(), content_type=b"application/jwk-set+json")
            case [".well-known", "openid-configuration"]:
                await exchange.answer(self._api.tokens.configuration())
            case [""]:
                await exchange.answer(
                    {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
                )
            case _:
                raise no_such_resource()

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            user = self._user(scope)
            path = parse_path(scope["path"])
            if path is None:
                raise no_such_resource()
            self._authorize(user, verb_of("GET", path, False), path)
            resource = self._api.registry.find(path.group, path.plural, path.version)
            if not resource.has_subresource(path.subresource, path.version):
                raise no_such_resource()
            await serve_socket(self._api, user, path, Query(scope["query_string"]), scope, receive, send)
        except ApiError as error:
            body = msgspec.json.encode(error.status)
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
