"""Which network a machine gets: the whole decision as a table."""

from dataclasses import replace

import pytest

from tulle.errors import UsageError
from tulle.local.net import Facts, choose
from tulle.local.net.choose import Wish

ROOT = Facts(euid=0, nft="/usr/sbin/nft", root_refusal="", user_refusal="")
USER = replace(ROOT, euid=1000, root_refusal="not tried")


@pytest.mark.parametrize(
    ("wish", "facts", "mode", "reason"),
    [
        ("auto", ROOT, "netns", "running as root"),
        ("auto", USER, "userns", "not root, but unprivileged user namespaces work here"),
        ("auto", replace(USER, nft=None), "loopback", "not root; the program nft is not installed"),
        ("auto", replace(ROOT, nft=None), "loopback", "the program nft is not installed"),
        (
            "auto",
            replace(USER, user_refusal="unshare: Operation not permitted"),
            "loopback",
            "not root; no unprivileged user namespaces: unshare: Operation not permitted",
        ),
        ("auto", replace(ROOT, root_refusal="unshare: Operation not permitted"), "userns", "root may not"),
        ("netns", ROOT, "netns", "asked for"),
        ("userns", ROOT, "userns", "asked for"),
        ("userns", USER, "userns", "asked for"),
        ("loopback", ROOT, "loopback", "asked for"),
        ("loopback", replace(USER, nft=None, user_refusal="no"), "loopback", "asked for"),
    ],
)
def test_the_best_network_that_can_run_is_taken(wish: Wish, facts: Facts, mode: str, reason: str) -> None:
    choice = choose(wish, facts)
    assert (choice.mode, reason in choice.reason) == (mode, True), choice


@pytest.mark.parametrize(
    ("wish", "facts", "why", "hint"),
    [
        ("netns", USER, "not root", "sudo"),
        ("netns", replace(ROOT, nft=None), "nft is not installed", "apt install nftables"),
        ("netns", replace(ROOT, root_refusal="unshare: refused"), "unshare: refused", "CAP_SYS_ADMIN"),
        ("userns", replace(USER, nft=None), "nft is not installed", "apt install nftables"),
        ("userns", replace(USER, user_refusal="unshare: refused"), "unshare: refused", "max_user_namespaces"),
    ],
)
def test_a_wished_network_that_cannot_run_says_what_is_missing(
    wish: Wish, facts: Facts, why: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        choose(wish, facts)
    assert caught.value.what == f"--mode {wish} cannot run on this machine"
    assert why in caught.value.why
    assert hint in caught.value.next_step
