"""Certificates of an authority, for servers on 127.0.0.1 and for who logs in with one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
NAMES: Final = {
    "right": "IP:127.0.0.1",
    "elsewhere": "DNS:db.plant.example",
    "expired": "IP:127.0.0.1",
    "certified": "DNS:agent",
}
"""What each certificate is for; `certified` is a client's."""


def make_certificates(folder: Path) -> None:
    """Two authorities, `ca` and `other-ca`, and by the first a certificate for each of `NAMES`.

    Each is a ``.pem`` with a ``.key`` beside it; ``locked.key`` is that of `certified` with the
    password ``x``.
    """

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    for name in ("ca", "other-ca"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *KEY, *files, "-subj", f"/CN=plant-{name}")
    for name, place in NAMES.items():
        files = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("req", *KEY, *files, "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(f"subjectAltName={place}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-out", f"{name}.pem", "-extfile", f"{name}.ext"),
            *("-days", "-1" if name == "expired" else "30"),
        )
    openssl("ec", "-in", "certified.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")
