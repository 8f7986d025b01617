"""The embedded Kubernetes API: a small cluster's API server in one process, in memory.

kubectl and client libraries reach it over HTTPS (http/), controllers and the node agent in-process (Api). It owns the
objects and every rule about them: shapes, defaults, validation, field ownership, admission, watches. It runs nothing:
pods, Deployments and Services come to life in tulle.local.controllers and tulle.local.pods.
"""

from tulle.local.api.api import Api
from tulle.local.api.auth.users import SYSTEM, User
from tulle.local.api.errors import ApiError
from tulle.local.api.nodeport import ExecSession, NodePort
from tulle.local.api.objects import Obj, ObjList, WatchEvent
from tulle.local.api.patch import PatchKind

__all__ = [
    "SYSTEM",
    "Api",
    "ApiError",
    "ExecSession",
    "NodePort",
    "Obj",
    "ObjList",
    "PatchKind",
    "User",
    "WatchEvent",
]
