"""Certificates for servers and clients of tests, good ones and each kind of bad one, as files that daemons can read."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """Issues certificates and writes them, with their keys, into a folder of its own."""

    folder: Path
    _issuer: trustme.CA

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, flaw: str = "") -> tuple[Path, Path]:
        """The files of a certificate for localhost and of its key.

        `flaw` is "wrong name", "expired", "self-signed" (by an authority that no one knows) or nothing.
        """
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        match flaw:
            case "wrong name":
                leaf = self._issuer.issue_cert("mail.example.com")
            case "expired":
                leaf = self._issuer.issue_cert("localhost", not_before=now - 2 * day, not_after=now - day)
            case "self-signed":
                leaf = trustme.CA().issue_cert("localhost")
            case _:
                leaf = self._issuer.issue_cert("localhost")
        return self._write(leaf, flaw.replace(" ", "-") or "good")

    def issue_for(self, identity: str) -> tuple[Path, Path]:
        """The files of a client's certificate and of its key."""
        return self._write(self._issuer.issue_cert(identity), "client")

    def _write(self, leaf: trustme.LeafCert, name: str) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(str(certificate), append=blob is not leaf.cert_chain_pems[0])
        leaf.private_key_pem.write_to_path(str(key))
        key.chmod(0o644)  # Exim reads it as its own user
        return certificate, key


@contextmanager
def authority() -> Iterator[Authority]:
    """Not below pytest's own folder, which only root may enter: daemons are other users."""
    folder = Path(tempfile.mkdtemp(prefix="bulkmail-ca-"))
    folder.chmod(0o755)
    try:
        issuer = trustme.CA()
        issuer.cert_pem.write_to_path(str(folder / "ca.pem"))
        yield Authority(folder, issuer)
    finally:
        shutil.rmtree(folder)
