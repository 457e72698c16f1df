"""Advice in errors: every remedy exists where the reader is, helps, and is not repeated."""

from __future__ import annotations

import ast
import asyncio
import re
import shlex
import socket
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asupplemented as asup
from asupplemented import remedies
from asupplemented.abc import RemoteReference
from asupplemented.cli.wording import OPTIONS
from asupplemented.remedies import Remedy
from asupplemented.testing import Basic, Bearer, FakeRegistry, Redirect, build_image
from asupplemented.testing.certificates import Authority
from tests.cli.conftest import called, list_commands
from tests.cli.test_running import log_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PACKAGE = Path(asup.__file__).parent
REMEDIES = [value for value in vars(remedies).values() if isinstance(value, Remedy)]
FOR_PROGRAMS = {remedies.ALLOW_IPV6, remedies.CACHE, remedies.TRANSPORT}
"""What the command line always does (IPv6), or says in words of its own (cache)."""

COMMANDS = list_commands()
OPTIONS_OF = {
    name: {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for name, command in COMMANDS.items()
}
WITHOUT_REGISTRY = {
    "serve",
    "mirrors",
    "login",
    "logout",
    "completion",
    "cache",
    *COMMANDS["cache"].commands,
}
"""Commands that reach none, or whose errors advise settings of a configuration: see tests/serve."""
VALUES = {"registry": "registry.example:5000", "origin": "https://auth.example"}


# Every remedy exists


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
def test_a_parameter_that_is_advised_exists(remedy: Remedy) -> None:
    text = remedy.parameter.format(**VALUES)
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert isinstance(call.func, ast.Name)
    parameters = signature(getattr(asup, call.func.id)).parameters
    assert {keyword.arg for keyword in call.keywords} <= set(parameters)


@pytest.mark.parametrize("remedy", REMEDIES, ids=str)
def test_an_option_that_is_advised_exists_in_every_command(remedy: Remedy) -> None:
    assert (remedy in OPTIONS) is (remedy not in FOR_PROGRAMS)
    if remedy in OPTIONS:
        option = OPTIONS[remedy].format(**VALUES).split()[0]
        without = {name for name, known in OPTIONS_OF.items() if option not in known}
        assert without <= WITHOUT_REGISTRY


def constants(file: Path) -> Iterator[str]:
    """The texts of a module that are not docstrings."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            continue
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str):
                yield child.value


ADVICE = re.compile(
    r"--[a-z]{3,}|\w+\(\w+=|Options\.\w|Timeouts\.\w|tls_verify=[TF]|\bsee [A-Z]\w+\."
)
LIBRARY_ONLY = {"_arguments.py", "remedies.py"}
"""What checks arguments of programs, and the remedies themselves."""
COMMAND_LINE = {"__main__.py", "cli/", "testing/", "serve/clients.py"}
"""What only the command line shows, and fakes."""


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: f.stem)
def test_no_message_advises_a_setting_past_the_remedies(file: Path) -> None:
    inside = file.relative_to(PACKAGE).as_posix()
    if inside.startswith(tuple(COMMAND_LINE)) or file.name in LIBRARY_ONLY:
        return
    assert [text for text in constants(file) if ADVICE.search(text)] == []


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda f: f.stem)
def test_options_in_messages_of_the_command_line_exist(file: Path) -> None:
    known = {"--version", "--help", "--help-all"}.union(*OPTIONS_OF.values())
    named = {option for text in constants(file) for option in re.findall(r"--[a-z.-]+[a-z]", text)}
    assert named - known == set()


def test_the_words_of_remedies_are_those_of_the_reader() -> None:
    assert "parse_reference(..., allow_ipv6=True)" in str(refuse_ipv6())
    with remedies.wording(OPTIONS.get):
        assert "allow_ipv6" not in str(refuse_ipv6())
        assert remedies.advise("set {}", remedies.OPEN_TIMEOUT) == "; set --open-timeout"
    assert "allow_ipv6" in str(refuse_ipv6())
    assert asup.parse_reference("docker://[::1]:5000/app", allow_ipv6=True).transport == "docker"


def refuse_ipv6() -> BaseException:
    with pytest.raises(asup.InvalidReferenceError) as caught:
        asup.parse_reference("docker://[::1]:5000/app")
    return caught.value


# Advice that is followed helps


@pytest.fixture
async def bearer(tmp_path: Path) -> AsyncIterator[FakeRegistry]:
    """A registry whose token server has the host name of another site."""
    access = Bearer({"ada": "correct horse"}, public=False)
    async with FakeRegistry(access=access) as registry:
        access.realm = f"{registry.url}/token".replace("127.0.0.1", "localhost")
        registry.add("team/app", IMAGE)
        log_in(tmp_path / "auth.json", registry.host)
        yield registry


IMAGE = build_image()


def advised(text: str) -> list[str]:
    """The options in an error, as one types them."""
    found = re.findall(r"--[a-z-]+(?: [^\s;()]*=[^\s;()]+)?", text)
    return [word for option in found for word in shlex.split(option)]


async def test_CRED02_the_command_line_says_how_to_allow_a_token_server(
    bearer: FakeRegistry, tmp_path: Path
) -> None:
    arguments = ["digest", bearer.reference("team/app"), "--no-tls-verify"]
    arguments += ["--authfile", str(tmp_path / "auth.json")]
    refused = await called(*arguments)
    assert (refused.code, "RegistryOptions" in refused.err) == (1, False)
    assert "--token-server" in advised(refused.err)
    allowed = await called(*arguments, *advised(refused.err))
    assert (allowed.code, allowed.out.strip()) == (0, IMAGE.digest), allowed.err
    everywhere = bearer.url.replace("127.0.0.1", "localhost")
    for text in (everywhere, everywhere.removeprefix("http://")):
        assert (await called(*arguments, "--token-server", text)).code == 0


async def test_CRED02_the_library_says_how_to_allow_a_token_server(bearer: FakeRegistry) -> None:
    async def find(*settings: Any) -> str:
        reference = asup.parse_reference(bearer.reference("team/app"))
        assert isinstance(reference, RemoteReference)
        given = {bearer.host: ("ada", "correct horse")}
        async with asup.Session(tls_verify=False, credentials=given, settings=settings) as session:
            return await reference.get_digest(session)

    with pytest.raises(asup.MalformedResponseError) as caught:
        await find()
    [text] = re.findall(r"RegistryOptions\(token_servers=(.*)\)(?= \(reference)", str(caught.value))
    assert await find(asup.RegistryOptions(token_servers=ast.literal_eval(text))) == IMAGE.digest


@pytest.mark.parametrize("text", ["", "ftp://a", "https://a/b", "https://u:p@a", "a b", "=", "x=/"])
async def test_CRED02_a_token_server_that_is_none_is_refused(text: str) -> None:
    answer = await called("digest", "docker://127.0.0.1:9/a", "--token-server", text)
    assert answer.code == 2
    assert "--token-server" in answer.err
    assert "is not host[:port]" in " ".join(answer.err.split())
    assert "u:p" not in answer.err


async def test_TLS05_the_advice_about_certificates_is_for_whom_it_helps() -> None:
    async with FakeRegistry(tls=Authority().server_context()) as secure, FakeRegistry() as plain:
        secure.add("team/app", IMAGE)
        refused = await called("digest", secure.reference("team/app"))
        assert advised(refused.err) == ["--no-tls-verify"]
        allowed = await called("digest", secure.reference("team/app"), *advised(refused.err))
        assert allowed.code == 0, allowed.err
        # A storage elsewhere is verified whatever the registry is, so there is nothing to set.
        plain.add("team/app", IMAGE)
        url = secure.put_file("/storage", b"").replace("127.0.0.1", "localhost")
        plain.script("*/manifests/*", Redirect(url), forever=True)
        elsewhere = await called("manifest", plain.reference("team/app"), "--no-tls-verify")
    assert (elsewhere.code, advised(elsewhere.err)) == (1, [])
    assert "the certificate of" in elsewhere.err


async def test_SEC01_private_targets_are_advised_until_they_are_allowed() -> None:
    async with FakeRegistry() as registry:
        registry.add("team/app", IMAGE)
        registry.script("*/manifests/*", Redirect("http://0.0.0.0:1/"), forever=True)
        arguments = ["manifest", registry.reference("team/app"), "--no-tls-verify"]
        refused = await called(*arguments)
        assert advised(refused.err) == ["--private-targets"]
        allowed = await called(*arguments, *advised(refused.err))
    assert (allowed.code, advised(allowed.err)) == (1, [])


async def test_the_time_to_open_can_be_set_where_it_is_advised() -> None:
    over = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        arguments = [f"docker://127.0.0.1:{port}/team/app", "--open-timeout", "0.2"]
        for command in ("digest", "tags", "manifest", "resolve"):
            answer = await called(command, *arguments)
            assert (answer.code, advised(answer.err)) == (1, ["--open-timeout"]), answer.err
            assert "Timeouts" not in answer.err
        over.set()


async def test_REF12_the_command_line_reads_ipv6_in_every_form() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = registry.host.split(":")
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async with FakeRegistry() as registry, await asyncio.start_server(forward, "::1") as server:
        registry.add("team/app", IMAGE)
        name = f"[::1]:{server.sockets[0].getsockname()[1]}/team/app:latest"
        for text in (name, f"docker://{name}"):
            answer = await called("digest", text, "--no-tls-verify")
            assert answer.out.strip() == IMAGE.digest, answer.err


# Credentials


async def test_a_401_has_an_exit_code_and_a_remedy() -> None:
    async with FakeRegistry(access=Basic({"ada": "correct horse"})) as registry:
        reference = registry.add("team/app", IMAGE)
        arguments = ["digest", reference, "--no-tls-verify"]
        refused = await called(*arguments)
        assert (refused.code, refused.out) == (5, "")
        assert f"asupplemented login {registry.host}, or give --creds USER:PASSWORD" in refused.err
        wrong = await called(*arguments, "--creds", "ada:wrong")
        assert (wrong.code, "check the user and the password of --creds" in wrong.err) == (5, True)
        assert "wrong" not in wrong.err
        assert (await called(*arguments, "--creds", "ada:correct horse")).code == 0


async def test_creds_go_to_the_registry_of_the_first_reference_only() -> None:
    async with (
        FakeRegistry(access=Basic({"ada": "s"})) as first,
        FakeRegistry(access=Basic({"ada": "s"})) as other,
    ):
        references = first.add("team/app", IMAGE), other.add("team/app", IMAGE)
        options = ("--creds", "ada:s", "--no-tls-verify")
        answer = await called("resolve", *references, *options)
        assert (answer.code, "member 1" in answer.err) == (5, True)
        seen = [request.header("Authorization") for request in other.requests]
    assert seen
    assert set(seen) == {None}


async def test_plain_http_behind_https_is_told() -> None:
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", IMAGE)
        refused = await called("digest", reference)
        assert advised(refused.err) == ["--no-tls-verify"]
        allowed = await called("digest", reference, *advised(refused.err))
    assert allowed.out.strip() == IMAGE.digest


async def test_a_supplement_that_cannot_be_opened_can_be_left_out() -> None:
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", IMAGE)
        gone = registry.reference("team/absent")
        for supplement in ("oci:/nowhere", gone):
            arguments = ["resolve", reference, supplement, "--tls-verify=false"]
            refused = await called(*arguments)
            assert (refused.code, "--unavailable skip" in refused.err) == (3, True)
            allowed = await called(*arguments, "--unavailable", "skip")
            assert allowed.code == 0, allowed.err
        top = await called("resolve", gone, reference, "--tls-verify=false")
        assert (top.code, "--unavailable" in top.err) == (3, False)


async def test_quiet_reports_errors_only(tmp_path: Path) -> None:
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", IMAGE)
        options = ("--no-tls-verify", "--to", f"oci:{tmp_path / 'out'}:app")
        loud = await called("copy", reference, *options)
        quiet = await called("copy", reference, *options, "--quiet", "--verbose")
        assert (loud.out, quiet.out) == (f"{IMAGE.digest}\n",) * 2
        assert (loud.err.count("copied"), quiet.err) == (1, "")
        failing = await called("copy", registry.reference("a/b"), *options, "--quiet")
    assert failing.err.startswith("error: ")
