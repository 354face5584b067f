"""Client certificates: the daemon's own and SPIFFE's, each from who may issue it."""

import os
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import access_service_pb2_grpc as access_grpc
from privyseald.adapters import pki

from tests.conftest import Daemon


class TrustDomain:
    """A SPIFFE server: a CA that issues X.509-SVIDs."""

    def __init__(self, name):
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._certificate(
            self.key.public_key(), f"spiffe://{name}", self.key, f"CA of {name}", ca=True
        )

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def svid(self, path, name="", *, common_name="", ca=False, more=(), days=1, signer=None):
        key = ec.generate_private_key(ec.SECP256R1())
        uri = f"spiffe://{name or self.name}{path}"
        certificate = self._certificate(
            key.public_key(), uri, signer or self.key, common_name, ca=ca, more=more, days=days
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def _certificate(self, public, uri, signer, common_name, *, ca, more=(), days=1):
        now = datetime.now(UTC)
        names = [x509.UniformResourceIdentifier(uri)] if uri else []
        names += [x509.UniformResourceIdentifier(u) for u in more]
        subject = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "SPIRE")]
        if common_name:
            subject.append(x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name))
        issuer = subject if ca and signer is self.key else self.certificate.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(issuer if isinstance(issuer, x509.Name) else x509.Name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not ca,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=ca,
                    crl_sign=ca,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def domains():
    return {name: TrustDomain(name) for name in ("prod.example", "dev.example")}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory, domains):
    folder = tmp_path_factory.mktemp("mesh")
    settings = ""
    for name, domain in domains.items():
        (folder / f"{name}.pem").write_bytes(domain.pem)
        bundle = folder / f"{name}.pem"
        settings += f'[[trust_domains]]\nname = "{name}"\nbundle = "{bundle}"\n'
    running = Daemon(folder / "data", settings)
    running.folder = folder
    running.init()
    running.start()
    yield running
    running.stop()


def who(daemon, certificate, key, channel=None):
    """Return the principal that a certificate stands for, or the error's text."""
    ca = (daemon.data / "tls/ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    options = [("grpc.use_local_subchannel_pool", 1)]
    to = channel or grpc.secure_channel(f"127.0.0.1:{daemon.ports[1]}", credentials, options)
    try:
        stub = access_grpc.AccessServiceStub(to)
        return stub.WhoAmI(access_pb.WhoAmIRequest(), timeout=10).principal
    except grpc.RpcError as error:
        return error.details() if error.code() is grpc.StatusCode.UNAUTHENTICATED else "refused"
    finally:
        if channel is None:
            to.close()


def test_an_svid_stands_for_its_spiffe_id(mesh, domains):
    svid = domains["prod.example"].svid("/ci/builder")
    assert who(mesh, *svid) == "spiffe://prod.example/ci/builder"
    grant = ("grant", "create", "--role", "auditor", "--principal")
    mesh.ok(*grant, "spiffe://prod.example/ci/builder")
    profile = mesh.folder / "svid"
    profile.mkdir()
    for name, data in zip(("client.pem", "client.key"), svid, strict=True):
        (profile / name).write_bytes(data)
    (profile / "profile.toml").write_text(
        f'server = "127.0.0.1:{mesh.ports[1]}"\nca = "{mesh.data}/tls/ca.pem"\n'
        'certificate = "client.pem"\nkey = "client.key"\n'
    )
    use = {"PRIVYSEAL_PROFILE": str(profile / "profile.toml")}
    assert mesh.ok("log", "list", "--last", "1", **use)["entries"]


def test_one_trust_domain_cannot_speak_for_another_nor_for_people(mesh, domains):
    dev = domains["dev.example"]
    refused = "was not issued by who may issue for its name"
    # TLS trusts this CA; its names are its own domain's alone.
    assert refused in who(mesh, *dev.svid("/ci/builder", "prod.example"))
    assert refused in who(mesh, *dev.svid("/ci/builder", "unknown.example"))
    # A certificate that says it is the admin, by a CA that issues for workloads.
    key = ec.generate_private_key(ec.SECP256R1())
    forged = dev._certificate(key.public_key(), "", dev.key, "admin", ca=False)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = forged.public_bytes(serialization.Encoding.PEM)
    assert refused in who(mesh, pem, private)
    svid = dev.svid("/ci/x", common_name="admin")
    assert who(mesh, *svid) == "spiffe://dev.example/ci/x", "the common name says nothing"


def test_what_is_no_svid_is_refused(mesh, domains):
    prod = domains["prod.example"]
    refused = ("refused", "the client certificate was not issued by who may issue for its name")
    assert who(mesh, *prod.svid("")) in refused, "no path"
    assert who(mesh, *prod.svid("/a/../b")) in refused
    assert who(mesh, *prod.svid("/a", more=["spiffe://prod.example/b"])) in refused
    assert who(mesh, *prod.svid("/a", ca=True)) in refused
    assert who(mesh, *prod.svid("/a", days=-1)) in refused
    assert who(mesh, *prod.svid("/a", signer=ec.generate_private_key(ec.SECP256R1()))) in refused
    ca = prod.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert who(mesh, prod.pem, ca) in refused, "the CA itself"


def test_a_bundle_is_read_again_without_a_restart(mesh, domains):
    prod = domains["prod.example"]
    svid = prod.svid("/ci/rotated")
    ca = (mesh.data / "tls/ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(ca, svid[1], svid[0])
    open_channel = grpc.secure_channel(f"127.0.0.1:{mesh.ports[1]}", credentials)
    assert who(mesh, *svid, open_channel) == "spiffe://prod.example/ci/rotated"

    bundle = mesh.folder / "prod.example.pem"
    renewed = TrustDomain("prod.example")
    bundle.write_bytes(renewed.pem)
    time.sleep(1.1)
    assert who(mesh, *renewed.svid("/ci/new")) == "spiffe://prod.example/ci/new"
    assert who(mesh, *svid) != "spiffe://prod.example/ci/rotated"
    assert "was not issued" in who(mesh, *svid, open_channel), "also on an open connection"

    bundle.write_text("this is no certificate")
    time.sleep(1.1)
    assert who(mesh, *renewed.svid("/ci/new")) == "spiffe://prod.example/ci/new", "the old stays"
    bundle.write_bytes(prod.pem)
    time.sleep(1.1)
    assert who(mesh, *svid, open_channel) == "spiffe://prod.example/ci/rotated"
    open_channel.close()


def test_a_bundle_in_the_form_of_spiffe_is_read(mesh, domains):
    import base64
    import json

    prod = domains["prod.example"]
    der = base64.b64encode(prod.certificate.public_bytes(serialization.Encoding.DER)).decode()
    keys = [{"use": "jwt-svid", "kid": "x"}, {"use": "x509-svid", "kty": "EC", "x5c": [der]}]
    bundle = mesh.folder / "prod.example.pem"
    renewed = TrustDomain("prod.example")
    bundle.write_bytes(renewed.pem)
    time.sleep(1.1)
    assert who(mesh, *prod.svid("/ci/json")) != "spiffe://prod.example/ci/json"
    bundle.write_text(json.dumps({"spiffe_sequence": 1, "spiffe_refresh_hint": 60, "keys": keys}))
    time.sleep(1.1)
    assert who(mesh, *prod.svid("/ci/json")) == "spiffe://prod.example/ci/json"
    bundle.write_bytes(prod.pem)
    time.sleep(1.1)


def test_a_denied_certificate_ends_at_once_on_an_open_connection(mesh):
    mesh.person("mallory", "auditor")
    folder = mesh.data / "mallory"
    pair = [(folder / f"client.{part}").read_bytes() for part in ("pem", "key")]
    ca = (mesh.data / "tls/ca.pem").read_bytes()
    to = grpc.secure_channel(
        f"127.0.0.1:{mesh.ports[1]}", grpc.ssl_channel_credentials(ca, pair[1], pair[0])
    )
    assert who(mesh, *pair, to) == "certificate:mallory"
    serial = f"{x509.load_pem_x509_certificate(pair[0]).serial_number:X}"
    colons = ":".join(serial[i : i + 2] for i in range(0, len(serial), 2))
    denied = mesh.ok("access", "deny-certificate", colons, "--reason", "laptop lost")
    assert denied["serial"] == serial.lower().lstrip("0")
    assert "is denied" in who(mesh, *pair, to)
    to.close()
    again = mesh.run("access", "deny-certificate", serial, "--reason", "x")
    assert again.code == 1
    listed = mesh.ok("access", "list-denied-certificates")["certificates"]
    assert [c["reason"] for c in listed] == ["laptop lost"]
    own = x509.load_pem_x509_certificate((mesh.data / "admin/client.pem").read_bytes())
    told = mesh.run("access", "deny-certificate", f"{own.serial_number:x}", "--reason", "x")
    assert "your own" in told.err


def test_a_renewed_server_certificate_is_used_without_a_restart(mesh):
    tls = mesh.data / "tls"
    pem, key = pki.issue(
        tls, common_name="privyseald", hosts=["localhost", "127.0.0.1"], days=pki.SERVER_DAYS
    )
    before = (tls / "server.pem").read_bytes(), (tls / "server.key").read_bytes()
    import ssl

    def served():
        return ssl.get_server_certificate(("127.0.0.1", mesh.ports[0]))

    assert served().strip() == before[0].decode().strip()
    (tls / "server.key").unlink()
    pki.write_private(tls / "server.key", key)
    (tls / "server.pem").write_bytes(pem)
    os.utime(tls / "server.pem")
    assert served().strip() == pem.decode().strip()
    assert mesh.run("app", "list").code == 0
