"""Which network this machine allows: a pure decision over facts that `probe` gathers."""

from dataclasses import dataclass
from typing import Literal

from tulle.errors import UsageError
from tulle.local.net.model import Mode

__all__ = ["Choice", "Facts", "Wish", "choose"]

Wish = Literal["auto", "netns", "userns", "loopback"]


@dataclass(frozen=True)
class Facts:
    """What was tried on this machine. An empty refusal means that it worked.

    `root_refusal`: making network namespaces, a veth pair and packet-filter rules directly.
    `user_refusal`: the same inside a new user namespace.
    """

    euid: int
    nft: str | None
    root_refusal: str
    user_refusal: str


@dataclass(frozen=True)
class Choice:
    """The network to use and, in a person's words, why."""

    mode: Mode
    reason: str


NFT_MISSING = "the program nft is not installed"
NFT_HINT = "install it (Debian, Ubuntu: apt install nftables; Fedora: dnf install nftables)"
USER_HINT = (
    "allow unprivileged user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, "
    "or on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
)


def choose(wish: Wish, facts: Facts) -> Choice:
    """Take the wished network, or with "auto" the best that can run.

    :raises UsageError: the wished network cannot run here; says what is missing and how to get it.
    """
    netns_missing, netns_hint = _netns_obstacle(facts)
    userns_missing, userns_hint = _userns_obstacle(facts)
    if wish == "netns":
        if netns_missing:
            raise _cannot("netns", netns_missing, netns_hint)
        return Choice("netns", "asked for; running as root")
    if wish == "userns":
        if userns_missing:
            raise _cannot("userns", userns_missing, userns_hint)
        return Choice("userns", "asked for; unprivileged user namespaces work here")
    if wish == "loopback":
        return Choice("loopback", "asked for; needs no privilege")
    if not netns_missing:
        return Choice("netns", "running as root")
    if not userns_missing:
        return Choice("userns", f"{netns_missing}, but unprivileged user namespaces work here")
    return Choice("loopback", f"{netns_missing}; {userns_missing}")


def _netns_obstacle(facts: Facts) -> tuple[str, str]:
    if facts.euid != 0:
        return "not root", "run it with sudo, or take --mode userns or --mode loopback"
    if facts.nft is None:
        return NFT_MISSING, NFT_HINT
    if facts.root_refusal:
        return (
            f"root may not make namespaces here: {facts.root_refusal}",
            "give the container CAP_SYS_ADMIN and CAP_NET_ADMIN, or take --mode loopback",
        )
    return "", ""


def _userns_obstacle(facts: Facts) -> tuple[str, str]:
    if facts.nft is None:
        return NFT_MISSING, NFT_HINT
    if facts.user_refusal:
        return (
            f"no unprivileged user namespaces: {facts.user_refusal}",
            f"{USER_HINT}, or take --mode loopback",
        )
    return "", ""


def _cannot(mode: Mode, why: str, hint: str) -> UsageError:
    return UsageError(f"--mode {mode} cannot run on this machine", why, hint)
