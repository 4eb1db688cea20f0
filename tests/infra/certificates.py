"""A certificate authority of a test's own, made with openssl."""

import subprocess
from pathlib import Path

from tests.infra.debian import program
from tests.infra.servers import give


class Authority:
    """A CA in a folder, and the certificates that it signs for localhost and 127.0.0.1."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        self.certificate = folder / f"{name}.pem"
        request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        self._openssl(*request, "-keyout", f"{name}.key", "-out", str(self.certificate))
        self.certificate.chmod(0o644)

    def sign(self, name: str) -> tuple[Path, Path]:
        """Return a server's certificate and key, which the servers' user can read."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        subject = ["-subj", f"/CN={name}"]
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", str(key), "-out", f"{name}.csr")
        signer = ["-CA", str(self.certificate), "-CAkey", f"{self.name}.key", "-CAcreateserial", "-days", "2"]
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", *signer, "-extfile", str(extensions), "-out", str(certificate)
        )
        key.chmod(0o600)
        return give(certificate), give(key)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run([program("openssl"), *arguments], cwd=self.folder, check=True, capture_output=True)
