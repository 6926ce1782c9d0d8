"""TLS certificates for tests, made by the program openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate for 127.0.0.1 that signed itself, and its key."""

    certificate: Path
    key: Path


def pair(folder: Path, name: str = "server", *, days: int = 2) -> Pair:
    """A new pair; with negative ``days`` it has expired already."""
    made = Pair(folder / f"{name}.pem", folder / f"{name}-key.pem")
    extensions = folder / f"{name}.cnf"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="utf-8")
    csr = folder / f"{name}.csr"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key)
    openssl("req", "-new", "-key", made.key, "-subj", f"/CN={name}", "-out", csr)
    openssl("x509", "-req", "-in", csr, "-signkey", made.key, "-days", days,
            "-extfile", extensions, "-out", made.certificate)  # fmt: skip
    return made


def openssl(*words: object) -> None:
    """Run one command of openssl."""
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
