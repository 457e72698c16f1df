"""Redaction: whatever a server does with our secrets, they are not repeated."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import MalformedResponseError, SupplementedError
from asupplemented.model.credential import Credential
from asupplemented.testing import Bearer, Body, FakeRegistry, Headers, Redirect, Status
from asupplemented.transports import parse_reference
from asupplemented.transports.registry import RegistryReference
from asupplemented.transports.registry.redaction import Secrets
from tests.transports.registry.sessions import BLOB_DIGEST, IMAGE, fill, watch
from tests.transports.registry.test_secrets import words_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.testing import Answer, Request

PASSWORD = "S3ntinel/pass+word"  # noqa: S105 - of a registry in this process
TOKEN = "Tq7sentinelTOKEN42zzYx"  # noqa: S105
BASIC = base64.b64encode(f"bob:{PASSWORD}".encode()).decode()

WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "upper": str.upper,
    "percent-encoded": lambda s: quote(s, safe=""),
    "all percent-encoded": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 within more": lambda s: base64.b64encode(f"x{s}yz".encode()).decode(),
    "base64 within even more": lambda s: base64.urlsafe_b64encode(f"xx{s}y".encode()).decode(),
    "hexadecimal": lambda s: s.encode().hex(),
    "split": lambda s: f"{s[:9]} - {s[9:]}",
    "spaced": " ".join,
    "in lines": lambda s: "-\n".join(s[i : i + 3] for i in range(0, len(s), 3)),
    "the beginning": lambda s: s[:12],
    "the end": lambda s: s[-12:],
    "reversed pieces": lambda s: f"{s[9:]}|{s[:9]}",
}


def pieces(secret: str, written: str) -> list[str]:
    """What must not be found, letters and digits only: every eight in a row."""
    letters = "".join(filter(str.isalnum, written)).lower()
    return [letters[i : i + 8] for i in range(len(letters) - 7)]


def leaks(text: str, secret: str) -> list[str]:
    """Pieces of a secret, in whatever way it is written, that are in a text."""
    plain = "".join(filter(str.isalnum, text)).lower()
    found: list[str] = []
    for way in ("plain", "percent-encoded", "base64", "hexadecimal"):
        found += [each for each in pieces(secret, WRITTEN[way](secret))[1:-1] if each in plain]
    return found


SECRETS = st.text(
    "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNP23456789+/=_-.~:@", min_size=12, max_size=80
)
AROUND = st.text("hijkl .,:'\"\n", max_size=30)


@given(SECRETS, st.sampled_from(sorted(WRITTEN)), AROUND, AROUND)
def test_CRED07_a_secret_is_removed_however_it_is_written(
    secret: str, way: str, before: str, after: str
) -> None:
    secrets = Secrets([secret])
    censored = secrets.censor_own(f"{before}{WRITTEN[way](secret)}{after}")
    assert not leaks(censored, secret)


@given(AROUND | st.text(max_size=60))
def test_CRED07_other_text_is_left_alone(text: str) -> None:
    assert Secrets(["0123456789abcdef" * 2]).censor_own(text) == text


def test_CRED07_short_secrets_are_removed_from_the_words_of_a_server_only() -> None:
    secrets = Secrets(["app", "", None])
    assert secrets.censor("no app here") == "no *** here"
    assert secrets.censor_own("no app here") == "no app here"


def test_CRED07_nothing_shows_the_secrets() -> None:
    assert PASSWORD not in repr(Secrets([PASSWORD]))


def test_CRED07_causes_and_notes_are_scrubbed() -> None:
    error = MalformedResponseError(f"a {TOKEN}", url=TOKEN, errors=(("X", TOKEN),))
    error.add_note(f"b {TOKEN}")
    error.__cause__ = ValueError(f"c {TOKEN}")
    error.__cause__.__context__ = SupplementedError(TOKEN)
    Secrets([TOKEN]).scrub(error)
    assert not leaks(words_of(error), TOKEN)


def _challenge(path: str, line: str) -> Any:
    value = f'Bearer realm="{path}",error="invalid_token",error_description="{line}"'
    return Status(401, {"WWW-Authenticate": value})


def _errors(line: str, text: str) -> Any:
    errors = [{"code": line, "message": text}, {"code": "X", "message": text}]
    return Status(403, body=json.dumps({"errors": errors}).encode())


def _manifest(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


ECHOES: dict[str, Callable[[str, str, str], Any]] = {
    "Warning": lambda text, line, path: Headers({"Warning": f'299 - "{line}"'}),
    "Location": lambda text, line, path: Redirect(f"http://127.0.0.1:1/{path}"),
    "Location, malformed": lambda text, line, path: Redirect(f"{path}://x"),
    "Link": lambda text, line, path: Headers({"Link": f"<http://[{path}>; rel=next"}),
    "Link on": lambda text, line, path: Headers({"Link": f"</{path}>; rel=next"}),
    "realm": lambda text, line, path: _challenge(path, line),
    "code and message": lambda text, line, path: _errors(line, text),
    "body": lambda text, line, path: Status(400, body=text.encode()),
    "manifest": lambda text, line, path: Body(_manifest(mediaType=text)),
    "media type": lambda text, line, path: Headers({"Content-Type": f"x/{path}"}),
    "both": lambda text, line, path: Body(_manifest(x=text), f"application/{path}"),
    "tag": lambda text, line, path: Body(json.dumps({"tags": [text]}).encode()),
    "encoding": lambda text, line, path: Headers(
        {"Content-Encoding": line, "Content-Type": "text/html"}
    ),
}
"""Responses that repeat a text, on one line, and as a path."""


def echo(place: str, way: str, secret: str) -> Any:
    text = WRITTEN[way](secret)
    line = " ".join(text.split())
    return ECHOES[place](text, line, quote(line, safe="%"))


@pytest.mark.parametrize("where", ["/v2/", "/token", "latest", "instance", "*/blobs/*", "*/tags/*"])
@pytest.mark.parametrize("place", ECHOES)
@pytest.mark.parametrize("way", ["plain", "base64", "split"])
async def test_CRED07_a_server_cannot_make_us_repeat_secrets(
    place: str, way: str, where: str
) -> None:
    words = ""
    # Before there is a token, nothing is known of it.
    known = (PASSWORD, BASIC) if where in {"/v2/", "/token"} else (PASSWORD, BASIC, TOKEN)
    for secret in known:
        path = IMAGE.digest if where == "instance" else where
        access = Bearer({"bob": PASSWORD})
        async with FakeRegistry(access=access) as registry:
            reference = parse_reference(fill(registry))
            assert isinstance(reference, RegistryReference)
            registry.script("/token", _give_token)
            if where == "/v2/":  # the ping is asked only if a manifest is denied
                registry.script("latest", Status(404))
            credentials = {registry.host: Credential("bob", PASSWORD)}
            async with watch(credentials=credentials) as watched:
                if where == "latest":
                    registry.script("latest", _accept)  # without a token, nothing is known of it
                elif where not in {"/v2/", "/token"}:
                    registry.script("/v2/team/*", *[_accept] * 3)
                registry.script(path, echo(place, way, secret), forever=True)
                for ask in (_open, _list, _ask_digest):
                    try:
                        await ask(reference, watched)
                    except SupplementedError as error:
                        words += words_of(error)
                words += repr(watched.events) + repr(watched.pool) + repr(watched.session)
    for secret in known:
        assert not leaks(words.replace("\\n", "\n"), secret)


def _give_token(answer: Answer, _request: Request) -> Answer:
    return Body(json.dumps({"token": TOKEN}).encode())(answer, _request)


def _accept(answer: Answer, request: Request) -> Answer:
    return answer


async def _open(reference: RegistryReference, watched: Any) -> None:
    async with reference.open(watched.session) as source:
        manifest = await source.get_manifest(IMAGE.digest)
        manifest.parse()
        async with source.open_blob(BLOB_DIGEST) as blob:
            await blob.read_all(1 << 20)


async def _list(reference: RegistryReference, watched: Any) -> None:
    await reference.list_tags(watched.session)


async def _ask_digest(reference: RegistryReference, watched: Any) -> None:
    await reference.get_digest(watched.session)
