"""Which directory of certificates counts, what it may hold, and whom the result trusts."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.certificates import (
    Certificates,
    find_directory,
    get_context,
    make_context,
    read_certificates,
)
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.testing.certificates import Authority
from tests.hostconfig.machine import forbid, write

if TYPE_CHECKING:
    from tests.hostconfig.machine import Machine

HOST = "registry.example:5000"
SERVER = "registry.example"


def shake_hands(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, name: str = SERVER
) -> ssl.SSLObject:
    """Both sides of a TLS handshake in memory; gives the server's side, or raises SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server


def serve(authority: trustme.CA, *, demand_client: bool = False) -> ssl.SSLContext:
    """A server that has a certificate of an authority, and may ask clients for one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with authority.issue_cert(SERVER).private_key_and_cert_chain_pem.tempfile() as file:
        context.load_cert_chain(file)
    if demand_client:
        context.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_name(server: ssl.SSLObject) -> str:
    """What the certificate that the client has shown says of itself; "" without one."""
    certificate = server.getpeercert() or {}
    return str(certificate.get("subjectAltName", ""))


def store(directory: Path, stem: str, pair: trustme.LeafCert) -> None:
    chain = b"".join(blob.bytes() for blob in pair.cert_chain_pems)
    (directory / f"{stem}.cert").write_bytes(chain)
    (directory / f"{stem}.key").write_bytes(pair.private_key_pem.bytes())


# The directory


async def test_TLS01_a_directory_for_all_counts_as_it_is(machine: Machine) -> None:
    machine.write_system(f"containers/certs.d/{HOST}/ca.crt")
    paths = replace(machine.paths, certificates=Path("/x"), certificates_root=Path("/y"))
    assert await find_directory(HOST, paths) == Path("/x")


async def test_TLS01_a_root_counts_whether_it_has_the_host_or_not(machine: Machine) -> None:
    machine.write_system(f"containers/certs.d/{HOST}/ca.crt")
    paths = replace(machine.paths, certificates_root=Path("/y"))
    assert await find_directory(HOST, paths) == Path("/y") / HOST


async def test_TLS01_what_may_not_be_seen_is_not_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = machine.write_user(f"certs.d/{HOST}/x").parent
    seen = machine.write_system(f"containers/certs.d/{HOST}/x").parent

    def see(path: Path, mode: int) -> bool:
        return path != hidden

    monkeypatch.setattr("os.access", see)
    assert await find_directory(HOST, machine.paths) == seen


async def test_TLS01_without_paths_there_is_none() -> None:
    assert await find_directory(HOST, ConfigurationPaths()) is None


@pytest.mark.parametrize("other", [SERVER, f"{SERVER}:443", "Registry.example:5000"])
async def test_TLS02_names_are_compared_as_they_are_written(machine: Machine, other: str) -> None:
    machine.write_system(f"containers/certs.d/{HOST}/x")
    assert await find_directory(other, machine.paths) is None


async def test_TLS02_docker_hub_goes_by_one_name(machine: Machine) -> None:
    found = machine.write_system("containers/certs.d/docker.io/x").parent
    assert await find_directory("docker.io", machine.paths) == found
    assert await find_directory("registry-1.docker.io", machine.paths) is None


@pytest.mark.parametrize("registry", ["", ".", "..", "a/b", "../a", "a\0b"])
@pytest.mark.parametrize("root", [None, Path("/y")])
async def test_TLS02_a_name_leads_out_of_no_directory(
    machine: Machine, registry: str, root: Path | None
) -> None:
    with pytest.raises(ConfigurationError, match="not a host"):
        await find_directory(registry, replace(machine.paths, certificates_root=root))


# What it holds


async def test_TLS03_authorities_and_pairs_are_found_by_name(
    tmp_path: Path, authority: Authority
) -> None:
    authority.write(tmp_path, client=True)
    for name in ("README", "ca.pem", "ca.crt.bak", "sub/x.crt"):
        write(tmp_path / name, "nothing")
    found = await read_certificates(tmp_path)
    assert found.authorities == (ssl.PEM_cert_to_DER_cert(authority.pem.decode()),)
    [pair] = found.pairs
    assert (pair.certificate.name, pair.key.name) == ("client.cert", "client.key")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("there", "missing"), [("a.cert", "its key a.key"), ("a.key", "its certificate a.cert")]
)
async def test_TLS03_half_of_a_pair_is_an_error_that_names_the_other_half(
    tmp_path: Path, there: str, missing: str
) -> None:
    for name in ("b.cert", "b.key", there):
        write(tmp_path / name, "")
    with pytest.raises(ConfigurationError, match=f"{there}.*without {missing}") as caught:
        await read_certificates(tmp_path)
    assert str(tmp_path) in caught.value.message


async def test_TLS03_a_file_that_vanishes_is_skipped(tmp_path: Path, authority: Authority) -> None:
    authority.write(tmp_path)
    (tmp_path / "gone.crt").symlink_to("nowhere")
    assert len((await read_certificates(tmp_path)).authorities) == 1


async def test_TLS03_a_file_that_may_not_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, "open", write(tmp_path / "ca.crt", ""))
    with pytest.raises(ConfigurationError, match=r"ca\.crt: Permission denied"):
        await read_certificates(tmp_path)


GARBAGE = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "holds no certificate in PEM"),
        ("\x30\x82binary", "holds no certificate in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "no certificate in PEM"),
        (GARBAGE, "number 1 is malformed"),
        ("-----BEGIN CERTIFICATE-----\nAAAA", "number 1 is malformed"),
        ("-----BEGIN CERTIFICATE-----\né\n-----END CERTIFICATE-----", "number 1 is malformed"),
        ("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----", "number 1 is malformed"),
    ],
)
async def test_TLS03_what_is_no_certificate_is_warned_of(
    tmp_path: Path, text: str, warning: str
) -> None:
    path = write(tmp_path / "ca.crt", text)
    found = await read_certificates(tmp_path)
    assert found.authorities == ()
    [told] = found.warnings
    assert str(path) in told
    assert warning in told


async def test_TLS03_good_certificates_count_beside_bad_ones(
    tmp_path: Path, authority: Authority
) -> None:
    other = Authority()
    pem = authority.pem.decode()
    write(tmp_path / "a.crt", f"a comment\n{pem}{GARBAGE}{other.pem.decode()}")
    found = await read_certificates(tmp_path)
    assert len(found.authorities) == 2
    [warning] = found.warnings
    assert "number 2 is malformed" in warning
    context = make_context(found)
    for each in (authority, other):
        shake_hands(context, each.server_context(SERVER))


async def test_TLS03_a_megabyte_that_only_begins_certificates_is_read_in_time(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.crt", "-----BEGIN CERTIFICATE-----" * 38_000)
    assert len((await read_certificates(tmp_path)).warnings) == 1


async def test_TLS04_no_directory_holds_nothing(tmp_path: Path) -> None:
    assert await read_certificates(None) == Certificates()
    assert await read_certificates(tmp_path / "nowhere") == Certificates()


async def test_TLS04_a_directory_that_may_not_be_listed_holds_nothing(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.write(tmp_path)
    forbid(monkeypatch, "scandir", tmp_path)
    found = await read_certificates(tmp_path)
    assert (found.authorities, found.pairs) == ((), ())
    [warning] = found.warnings
    assert f"no permission to list {tmp_path}" in warning


# What comes of it


async def test_TLS03_own_authorities_are_trusted_and_strangers_are_not(
    tmp_path: Path, authority: Authority
) -> None:
    context = make_context(await read_certificates(authority.write(tmp_path)))
    shake_hands(context, authority.server_context(SERVER))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, Authority().server_context(SERVER))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, authority.server_context("other.example"))


async def test_TLS03_own_authorities_are_added_to_those_of_the_system(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(system.write(tmp_path / "system") / "ca.crt"))
    context = make_context(await read_certificates(authority.write(tmp_path / "own")))
    for each in (system, authority):
        shake_hands(context, each.server_context(SERVER))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(make_context(Certificates()), authority.server_context(SERVER))


async def test_TLS03_an_intermediate_authority_is_trusted_without_its_root(tmp_path: Path) -> None:
    root = trustme.CA()
    intermediate = root.create_child_ca()
    (tmp_path / "ca.crt").write_bytes(intermediate.cert_pem.bytes())
    shake_hands(make_context(await read_certificates(tmp_path)), serve(intermediate))


@pytest.mark.parametrize("verify", [True, False])
async def test_TLS03_a_client_certificate_is_shown(
    tmp_path: Path, authority: Authority, *, verify: bool
) -> None:
    server = authority.server_context(SERVER, demand_client=True)
    authority.write(tmp_path)
    with pytest.raises(ssl.SSLError):
        shake_hands(make_context(await read_certificates(tmp_path), verify=verify), server)
    authority.write(tmp_path, client=True)
    context = make_context(await read_certificates(tmp_path), verify=verify)
    assert "client@example.org" in client_name(shake_hands(context, server))


async def test_TLS03_of_several_client_certificates_the_first_is_shown(tmp_path: Path) -> None:
    authority = trustme.CA()
    for stem in ("b", "a", "c"):
        store(tmp_path, stem, authority.issue_cert(f"{stem}@example.org"))
    found = await read_certificates(tmp_path)
    assert [pair.certificate.name for pair in found.pairs] == ["a.cert", "b.cert", "c.cert"]
    [warning] = found.warnings
    assert "several client certificates" in warning
    assert "a.cert" in warning
    server = serve(authority, demand_client=True)
    shown = client_name(shake_hands(make_context(found, verify=False), server))
    assert "a@example.org" in shown


async def test_TLS03_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    authority = trustme.CA()
    store(tmp_path, "a", authority.issue_cert("a@example.org"))
    other = authority.issue_cert("b@example.org")
    (tmp_path / "a.key").write_bytes(other.private_key_pem.bytes())
    with pytest.raises(ConfigurationError, match=r"a\.cert and .*a\.key are not a matching"):
        make_context(await read_certificates(tmp_path))


async def test_TLS03_a_pair_that_is_no_pem_is_an_error(tmp_path: Path) -> None:
    for name in ("a.cert", "a.key"):
        write(tmp_path / name, "nothing")
    with pytest.raises(ConfigurationError, match="not a matching certificate and key in PEM"):
        make_context(await read_certificates(tmp_path))


async def test_TLS03_a_pair_that_vanished_is_an_error(tmp_path: Path, authority: Authority) -> None:
    found = await read_certificates(authority.write(tmp_path, client=True))
    (tmp_path / "client.key").unlink()
    with pytest.raises(ConfigurationError, match=r"client\.key: No such file"):
        make_context(found)


async def test_TLS03_a_key_with_a_password_is_an_error_and_asks_nobody(tmp_path: Path) -> None:
    pair = trustme.CA().issue_cert("a@example.org")
    store(tmp_path, "a", pair)
    key = load_pem_private_key(pair.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
    )
    (tmp_path / "a.key").write_bytes(encrypted)
    with pytest.raises(ConfigurationError, match=r"a\.key is encrypted.*decrypt it"):
        make_context(await read_certificates(tmp_path))


def test_TLS05_an_insecure_context_trusts_everyone(authority: Authority) -> None:
    context = make_context(Certificates(), verify=False)
    shake_hands(context, authority.server_context("other.example"))


@pytest.mark.parametrize("verify", [True, False])
def test_TLS06_the_protocol_is_at_least_1_2(authority: Authority, *, verify: bool) -> None:
    context = make_context(Certificates(), verify=verify)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    server = authority.server_context(SERVER)
    server.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL"):
        shake_hands(context, server)


async def test_TLS06_directories_are_read_anew_each_time(
    tmp_path: Path, authority: Authority
) -> None:
    before = await read_certificates(tmp_path)
    after = await read_certificates(authority.write(tmp_path))
    assert before != after
    assert after == await read_certificates(tmp_path)
    assert hash(after) == hash(await read_certificates(tmp_path))
    assert make_context(after) is not make_context(after)


async def test_TLS06_a_context_is_made_once_for_each_state_of_its_files(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, other = (Authority().write(tmp_path / name) / "ca.crt" for name in ("a", "b"))
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    directory = authority.write(tmp_path / "own", client=True)
    first = await read_certificates(directory)
    context = get_context(first)
    assert get_context(await read_certificates(directory)) is context
    unverified = get_context(first, verify=False)
    assert unverified is not context

    authority.write(directory, client=True)  # of the same names and sizes, and another key
    assert await read_certificates(directory) == first
    renewed = get_context(first)
    assert renewed is not context

    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    assert get_context(first) is not renewed
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    assert get_context(first) is renewed

    (directory / "extra.crt").write_bytes(Authority().pem)
    assert get_context(await read_certificates(directory)) is not renewed
    (directory / "client.key").unlink()
    with pytest.raises(ConfigurationError):
        get_context(first)
