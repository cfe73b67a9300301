"""What a server's certificate says: for whom, from whom, until when."""

from __future__ import annotations

import datetime

from bulkmail.model.lazy import dataclass
from bulkmail.text import printable

_MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Certificate:
    """The parts that people ask about, safe to print.  `names` are the hosts that it is for;
    `is_self_signed`: signed by its own key."""

    subject: str
    names: tuple[str, ...]
    issuer: str
    valid_from: datetime.datetime
    valid_until: datetime.datetime
    is_self_signed: bool = False


def read_certificate(der: bytes) -> Certificate | None:
    """The certificate in `der`; None if it cannot be read."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(der)
        names: list[str] = []
        try:
            alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names += alternative.get_values_for_type(x509.DNSName)
            names += map(str, alternative.get_values_for_type(x509.IPAddress))
        except x509.ExtensionNotFound:
            pass
        subject, issuer = _name(found.subject), _name(found.issuer)
        return Certificate(
            subject=subject or (printable(names[0], 100) if names else ""),
            names=tuple(printable(name, 100) for name in names[:_MOST_NAMES]),
            issuer=issuer,
            valid_from=found.not_valid_before_utc,
            valid_until=found.not_valid_after_utc,
            is_self_signed=found.subject == found.issuer,
        )
    except ValueError:
        return None


def _name(name: object) -> str:
    """The common name, or else the organisation."""
    from cryptography import x509

    assert isinstance(name, x509.Name)  # noqa: S101
    for kind in (x509.NameOID.COMMON_NAME, x509.NameOID.ORGANIZATION_NAME):
        if found := name.get_attributes_for_oid(kind):
            return printable(str(found[0].value), 100)
    return printable(name.rfc4514_string(), 100)
