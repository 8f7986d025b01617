"""The committed generated code is that of proto/; scripts/protos.sh regenerates it."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROTOS = [
    *sorted((ROOT / "proto/tulle/api").glob("*.proto")),
    *sorted((ROOT / "proto/envoy").glob("*.proto")),
    *sorted((ROOT / "proto/spiffe").glob("*.proto")),
    *sorted((ROOT / "proto/opentelemetry").glob("*.proto")),
]


def test_rust_and_python_were_generated_from_these_protos() -> None:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in PROTOS)).hexdigest()

    recorded = {
        folder: (ROOT / folder / "PROTO_SHA256").read_text().strip()
        for folder in ("crates/api/src/gen", "src/tulle/api")
    }

    assert recorded == dict.fromkeys(recorded, digest), "stale: run scripts/protos.sh"


def test_python_messages_are_what_the_generator_writes(tmp_path: Path) -> None:
    subprocess.run(
        ["sh", str(ROOT / "scripts/protos-python.sh"), str(tmp_path)],
        check=True,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )

    def written(folder: Path) -> dict[str, str]:
        found = sorted((folder / "tulle").glob("*/*_pb2.py*"))
        return {str(path.relative_to(folder)): path.read_text() for path in found}

    assert "tulle/emojivoto/emojivoto_pb2.py" in written(tmp_path)
    assert written(ROOT / "src") == written(tmp_path), "edited by hand or stale: run scripts/protos.sh"


def test_what_is_ours_stays_above_field_number_1000() -> None:
    from tulle.api import inbound_pb2, meta_pb2

    assert inbound_pb2.Server.DESCRIPTOR.fields_by_name["services"].number == 1000
    assert meta_pb2.Resource.DESCRIPTOR.fields_by_name["source"].number == 1000


def test_method_paths_are_those_of_the_services() -> None:
    import tulle.api
    from tulle.api import destination_pb2, identity_pb2, inbound_pb2, outbound_pb2, tap_pb2

    described = {
        f"/{service.full_name}/{method.name}"
        for module in (destination_pb2, identity_pb2, inbound_pb2, outbound_pb2, tap_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    assert {getattr(tulle.api, name) for name in tulle.api.__all__} == described
