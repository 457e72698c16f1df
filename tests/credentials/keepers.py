"""Credential helpers and files for tests: real programs in a directory, and what watches them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asupplemented.aio.retry import Clock
from tests.suspending import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

USER_SENTINEL = "sentinel-user"
SECRET_SENTINEL = "sentinel-secret"  # noqa: S105 - it is looked for, and opens nothing


def encode(text: str) -> str:
    """The ``auth`` of an entry."""
    return base64.b64encode(text.encode()).decode()


def entry(text: str = "user:pass", **fields: str) -> dict[str, str]:
    """An entry of ``auths``."""
    return {"auth": encode(text), **fields}


def write_json(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


class Shelf:
    """A directory of programs that is first on the PATH of `environ`.

    Each program counts its runs, and writes down its arguments and its stdin.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        self.environ = {"PATH": f"{self.bin}:{SYSTEM_PATH}", "SHELF": str(root)}
        self._before = children()

    def add(self, suffix: str, body: str) -> Path:
        """Write a helper in the language of the shell; ``$SHELF`` is the root."""
        path = self.bin / f"docker-credential-{suffix}"
        path.write_text(
            "#!/bin/sh\n"
            f'echo run >> "$SHELF/{suffix}.runs"\n'
            f'printf "%s|" "$@" > "$SHELF/{suffix}.arguments"\n'
            f"{body}\n"
        )
        path.chmod(0o755)
        return path

    def add_answer(self, suffix: str, answer: object, *, status: int = 0) -> Path:
        """Write a helper that reads its stdin and prints something."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (self.root / f"{suffix}.answer").write_text(text)
        return self.add(
            suffix,
            f'cat > "$SHELF/{suffix}.stdin"; cat "$SHELF/{suffix}.answer"; exit {status}',
        )

    def add_user(self, suffix: str, user: str = "user", secret: str = "pass") -> Path:  # noqa: S107
        """Write a helper that knows a user."""
        return self.add_answer(suffix, {"ServerURL": "x", "Username": user, "Secret": secret})

    def is_quiet(self) -> bool:
        """Whether no process is left that was started since, not even one to be collected."""
        return children() <= self._before

    def runs(self, suffix: str) -> int:
        path = self.root / f"{suffix}.runs"
        return len(path.read_text().split()) if path.exists() else 0

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def pids(self, name: str) -> list[int]:
        """The numbers that programs wrote to a file."""
        return [int(number) for number in self.read(name).split()]


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that was killed and not collected is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def children() -> set[int]:
    """The processes that this one has started, those that were not collected included."""
    found: set[int] = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.add(int(directory.name))
    return found


class PatientClock:
    """A clock whose sleepers wake when something is so, and not before.

    Args:
        wake: When those wake who sleep for long; None for never.
        hasty: Those who sleep for less than a second wake at once.

    Attributes:
        time: Seconds; they pass only when a test says so.
        slept: Every sleep, in seconds.
    """

    def __init__(self, wake: Callable[[], bool] | None = None, *, hasty: bool = False) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self._wake = wake
        self._hasty = hasty

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._hasty and seconds < 1:
            await asyncio.sleep(0)
        elif self._wake is None:
            await asyncio.Event().wait()
        else:
            await wait_until(self._wake, every=0.005)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self.sleep)


def words_of(error: BaseException) -> str:
    """All that an error can be made to say, whatever it hangs together with."""
    chain: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and link not in chain:
            chain.append(link)
            waiting += [link.__cause__, link.__context__]
    texts = ["".join(traceback.format_exception(error))]
    for link in chain:
        fields = vars(link) | {
            name: getattr(link, name)
            for name in ("doc", "object", "msg", "strerror", "filename")
            if hasattr(link, name)
        }
        texts += [str(link), repr(link), repr(link.args), repr(fields)]
    return "\n".join(texts)


def secrets_in(text: str) -> list[str]:
    """The sentinels that occur in a text, as they are or encoded."""
    plain = (USER_SENTINEL, SECRET_SENTINEL)
    spelled = [*plain, encode(f"{USER_SENTINEL}:{SECRET_SENTINEL}"), *map(encode, plain)]
    return [secret for secret in spelled if secret.rstrip("=") in text]
