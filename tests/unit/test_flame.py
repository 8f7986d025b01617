"""The flame graph: what `perf` says becomes stacks, and stacks become boxes as wide as their share."""

import re
from collections import Counter

from tests.bench.flame import fold, render, short

SCRIPT = """\
    ffffffff81 tcp_sendmsg ([kernel.kallsyms])
    7f0001 __send (/usr/lib/libc.so.6)
    55001 tulle_proxy::net::relay::Half::poll (/target/tulle-proxy)
    55000 tokio::runtime::task::raw::poll (/target/tulle-proxy)
    7f0000 start_thread (/usr/lib/libc.so.6)
    1 [unknown] ([unknown])

    55002 <rustls::client::Tls<T> as std::io::Write>::write (/target/tulle-proxy)
    55001 tulle_proxy::net::relay::Half::poll (/target/tulle-proxy)

    ffffffff81 tcp_sendmsg ([kernel.kallsyms])
    7f0001 __send (/usr/lib/libc.so.6)
    55001 tulle_proxy::net::relay::Half::poll (/target/tulle-proxy)
    55000 tokio::runtime::task::raw::poll (/target/tulle-proxy)
"""


def test_stacks_are_counted_from_the_outermost_frame_with_their_kind() -> None:
    assert fold(SCRIPT.splitlines()) == {
        ("library:a task", "sidecar:Half::poll", "library:__send", "kernel:tcp_sendmsg"): 2,
        ("library:the runtime", "sidecar:Half::poll", "library:Tls::write"): 1,
    }


def test_names_lose_type_parameters_and_long_paths() -> None:
    assert short("tokio::runtime::task::harness::poll_future") == "harness::poll_future"
    assert short("core::ptr::drop_in_place<alloc::vec::Vec<u8>>") == "ptr::drop_in_place"
    assert short("<a::B<fn(u8) -> u8> as c::D>::e") == "B::e"
    assert short("tulle_proxy::outbound::captured::{{closure}}") == "outbound::captured"
    assert short("malloc") == "malloc"


def test_a_frame_is_as_wide_as_its_share_and_lies_on_its_caller() -> None:
    stacks = {frames[1:]: count for frames, count in fold(SCRIPT.splitlines()).items()}
    drawn = render(stacks, "two & three")
    boxes = re.findall(r'<title>(\S+) ([\d.]+)%</title><rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"', drawn)
    seen = {name: (float(share), round(float(wide)), int(y)) for name, share, _, y, wide in boxes}
    assert {name: share for name, (share, _, _) in seen.items()} == {
        "Half::poll": 100.0, "__send": 66.7, "tcp_sendmsg": 66.7, "Tls::write": 33.3,
    }  # fmt: skip
    assert [seen[name][1] for name in ("Half::poll", "__send", "Tls::write")] == [1200, 800, 400]
    assert seen["tcp_sendmsg"][2] < seen["__send"][2] == seen["Tls::write"][2] < seen["Half::poll"][2]
    assert "two &amp; three" in drawn


def test_what_is_too_narrow_to_see_is_left_out() -> None:
    drawn = render(Counter({("sidecar:wide",): 999, ("sidecar:narrow",): 1}), "")
    assert "wide" in drawn
    assert "narrow" not in drawn
