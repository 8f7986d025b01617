"""Whether this machine can run a mesh: a pure judgement of facts that the caller gathers."""

from dataclasses import dataclass

from tulle.tools.check import Category, Check, failed, passed, warned

__all__ = ["MachineFacts", "machine"]

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class MachineFacts:
    """What was found. Empty texts mean: no trouble (`*_trouble`), or nothing found.

    `network` is the best mode that can run, `network_reason` why it is that one.
    """

    system: str
    kernel: str
    python: tuple[int, int, int]
    version: str
    proxy_path: str
    proxy_version: str
    proxy_trouble: str
    engine_trouble: str
    network: str
    network_reason: str
    loopback_trouble: str
    state_folder: str
    state_trouble: str


def machine(facts: MachineFacts) -> Category:
    """Judge the machine."""
    return Category(
        "machine",
        [
            _system(facts),
            _python(facts),
            _proxy(facts),
            _engine(facts),
            _network(facts),
            _loopback(facts),
            _state(facts),
        ],
    )


def _system(facts: MachineFacts) -> Check:
    if facts.system == "Linux":
        return passed(f"runs Linux {facts.kernel}")
    return failed(
        f"runs {facts.system}", "`tulle up` needs Linux", "use a Linux machine, container or virtual machine"
    )


def _python(facts: MachineFacts) -> Check:
    text = ".".join(map(str, facts.python))
    if facts.python[:2] >= OLDEST_PYTHON:
        return passed(f"Python {text}")
    return failed(f"Python {text}", "3.11 is the oldest that works", "install a newer Python")


def _proxy(facts: MachineFacts) -> Check:
    if facts.proxy_trouble:
        return failed(
            "the sidecar's program can run",
            facts.proxy_trouble,
            "in a checkout: make build; else install the wheel again",
        )
    what = f"the sidecar's program {facts.proxy_path} has version {facts.proxy_version}"
    if facts.proxy_version != facts.version:
        return warned(what, f"the command has version {facts.version}", "build or install both together")
    return passed(what)


def _engine(facts: MachineFacts) -> Check:
    what = "Python reaches the sidecar's engine (for tulle explain)"
    if facts.engine_trouble:
        return warned(what, facts.engine_trouble, "in a checkout: make build; else install the wheel again")
    return passed(what)


def _network(facts: MachineFacts) -> Check:
    what = f"best network: {facts.network}, {facts.network_reason}"
    if facts.network == "loopback":
        return warned(
            what,
            "without transparent capture, applications reach the mesh through http_proxy",
            "see docs/networks.md for what the other networks need",
        )
    return passed(what)


def _loopback(facts: MachineFacts) -> Check:
    what = "addresses of 127.0.0.0/8 can be listened on"
    if facts.loopback_trouble:
        return failed(what, facts.loopback_trouble, "bring the loopback interface up: ip link set lo up")
    return passed(what)


def _state(facts: MachineFacts) -> Check:
    what = f"{facts.state_folder} can be written"
    if facts.state_trouble:
        return failed(what, facts.state_trouble, "set XDG_STATE_HOME to a folder of yours")
    return passed(what)
