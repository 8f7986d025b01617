"""Reads once from a Kubernetes API what explaining needs: the World, and the mesh's own settings."""

import msgspec

from tulle.compile.mesh import Mesh
from tulle.errors import TulleError
from tulle.inject.install.values import read_values
from tulle.kube import kinds
from tulle.kube.client import ApiError, Client
from tulle.kube.kinds import Kind
from tulle.kube.objects import decode_view
from tulle.kube.reflector import PAGE_SIZE, Change
from tulle.kube.world import World
from tulle.tools.installation import mesh_of

__all__ = ["read_mesh", "read_world"]

CONFIG = "/api/v1/namespaces/{namespace}/configmaps/linkerd-config"


async def read_world(client: Client) -> World:
    """List every kind that the mesh reads. Kinds that the API does not serve stay empty.

    Raises ApiError or Unreachable, and TulleError for an object that is malformed.
    """
    world = World()
    try:
        for kind in kinds.ALL:
            await _read_kind(client, world, kind)
    except msgspec.MsgspecError as error:
        raise TulleError("the API holds an object that cannot be read", str(error)) from error
    return world


async def _read_kind(client: Client, world: World, kind: Kind) -> None:
    for version in kind.versions:
        try:
            params = {"limit": str(PAGE_SIZE)}
            while True:
                page = await client.list(kind, version, params)
                views = [decode_view(item, kind.view) for item in page.items]
                world.apply(kind, [Change(None, view) for view in views])
                if not page.continue_token:
                    return
                params = {"limit": str(PAGE_SIZE), "continue": page.continue_token}
        except ApiError as error:
            if error.status != 404:
                raise


async def read_mesh(client: Client, namespace: str) -> Mesh:
    """Read the settings of the control plane in a namespace; the defaults when none is installed there.

    Raises ApiError or Unreachable, and TulleError for settings that cannot be read.
    """
    try:
        config = await client.get(CONFIG.format(namespace=namespace))
        return mesh_of(read_values(config["data"]["values"]))
    except ApiError as error:
        if error.status == 404:
            return Mesh(control_plane_namespace=namespace)
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise TulleError(
            f"ConfigMap {namespace}/linkerd-config cannot be read",
            f"{type(error).__name__}: {error}",
            "install again with `tulle install`",
        ) from error
