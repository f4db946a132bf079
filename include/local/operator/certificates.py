"""The load balancer's certificate: a CA of its own, as the operator makes one for each endpoint."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from dataclasses import dataclass

from include.local.controller.resources import Object

LIFETIME = dt.timedelta(days=365)
DOMAINS = ("localhost",)


@dataclass(frozen=True)
class Certificate:
    """PEM texts of one endpoint's certificate authority, certificate and key."""

    ca: bytes
    certificate: bytes
    key: bytes
    expires: dt.datetime

    def secret(self, namespace: str, name: str, owner: Object) -> Object:
        """The TLS secret that the load balancer reads."""
        encode = {"ca.crt": self.ca, "tls.crt": self.certificate, "tls.key": self.key}
        data = {field: base64.b64encode(value).decode() for field, value in encode.items()}
        meta = {"name": name, "namespace": namespace, "ownerReferences": [owner]}
        return {"metadata": meta, "type": "kubernetes.io/tls", "data": data}


def from_secret(secret: Object) -> Certificate:
    """Read back what :meth:`Certificate.secret` wrote."""
    from cryptography import x509

    data = {name: base64.b64decode(text) for name, text in secret["data"].items()}
    expires = x509.load_pem_x509_certificate(data["tls.crt"]).not_valid_after_utc
    return Certificate(data["ca.crt"], data["tls.crt"], data["tls.key"], expires)


def issue(name: str, now: dt.datetime) -> Certificate:
    """Make a CA and a certificate for the local load balancer's names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def common(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])

    def builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(minutes=5)).not_valid_after(now + LIFETIME)
        return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)

    def usage(*, ca: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority, subject = common(f"{name} CA"), common(DOMAINS[0])
    ca = builder(authority, authority, ca_key.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signed_ca = ca.add_extension(usage(ca=True), critical=True).sign(ca_key, hashes.SHA256())
    names = [*map(x509.DNSName, DOMAINS), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = builder(subject, authority, key.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(usage(ca=False), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    leaf = leaf.add_extension(authority_key, critical=False)
    signed = leaf.sign(ca_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(signed_ca.public_bytes(pem), signed.public_bytes(pem), private, signed.not_valid_after_utc)
