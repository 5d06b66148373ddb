"""Certificates made on the spot: an authority, and what it signs."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """An authority; its certificate and all that it signs are PEM files in `folder`."""

    def __init__(self, folder, name):
        self.folder, self.name, self.key = folder, name, ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._sign(self.subject, self.key.public_key(), [(constraints, True)], ended=False)
        self.cert = self._write(f"{name}.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, public, extensions, ended):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.subject).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - 10 * DAY).not_valid_after(now - DAY if ended else now + DAY)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return path

    def issue(self, name, ended=False, address="127.0.0.1"):
        """A certificate for `name`, localhost and `address`, and its key: two paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName(n) for n in {name, "localhost"}] + [x509.IPAddress(ipaddress.ip_address(address))]
        certificate = self._sign(subject, key.public_key(), [(x509.SubjectAlternativeName(names), False)], ended)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        stem = f"{self.name}-{name}"
        return self._write(f"{stem}.pem", certificate.public_bytes(pem)), self._write(f"{stem}.key", private)
