"""The JSON of a resolution: what no resolution writes is refused at once (rule X-18)."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asupplemented import ConfigurationError, Digest, Resolution, Session, supplement
from asupplemented.abc import RawManifest
from asupplemented.testing.images import build_image, build_index
from asupplemented.transports.memory import MemoryReference
from tests.members import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGES = [build_image("linux/amd64", [{"n": str(number)}]) for number in range(3)]
XML = b"<xml/>"
OPAQUE = {"mediaType": "application/xml", "digest": Digest.of(XML), "size": len(XML)}
TOP = build_index([*IMAGES[:2], OPAQUE, {**OPAQUE, "digest": "blake3:" + "0" * 64}])


async def make() -> dict[str, Any]:
    held = hold("top", TOP)
    manifests = {**held.manifests, Digest.of(XML): RawManifest(XML, None)}
    top = MemoryReference("top", held.default, manifests, held.blobs)
    nested = hold("nested", build_index([IMAGES[1], IMAGES[2]]))
    twice = hold("image", IMAGES[0])
    group = supplement(
        *(top, nested, twice, "oci:/nowhere", twice), unavailable="skip", unknown="opaque"
    )
    async with Session() as session:
        plan = await group.resolve(session)
    assert plan.opaque
    assert plan.missing
    assert plan.unavailable
    assert plan.alternates
    tree: dict[str, Any] = json.loads(plan.to_json())
    return tree


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    import asyncio

    return asyncio.run(make())


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*path, key))


VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 99, 2**70, 1.5, "", "x", "rubbish", "../../etc", [], {}, [[]]),
    *("sha256:" + "0" * 64, "sha256:abc", "blake3:1", "\ud800", [0, "sha256:" + "0" * 64]),
]


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_X18_a_mutation_is_refused_with_one_error_or_means_something(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    mutant = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(mutant)) or [()]))
        if not path:
            break
        node: Any = mutant
        for key in path[:-1]:
            node = node[key]
        match data.draw(st.sampled_from(("set", "remove", "double", "swap"))):
            case "set":
                node[path[-1]] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
            case "remove":
                del node[path[-1]]
            case "double" if isinstance(node, list):
                node.append(copy.deepcopy(node[path[-1]]))
            case "swap" if isinstance(node, list):
                node.reverse()
            case _:
                node[path[-1]] = copy.deepcopy(VALUES)
    raw = json.dumps(mutant)
    try:
        plan = Resolution.from_json(raw)
    except ConfigurationError:
        return
    use(plan)
    assert Resolution.from_json(plan.to_json()) == plan


def use(plan: Resolution) -> None:
    """Everything that a resolution can be asked raises nothing."""
    assert plan.sources[plan.top] >= 0
    assert len(plan.defaults) == len(plan.members)
    for digest in (*plan.sources, *plan.blobs):
        plan.explain(digest)
    for blob in plan.blobs:
        plan.descriptor(blob)
        assert plan.candidates(blob)
    plan.to_dict()
    assert plan.instances()
    assert all(isinstance(error, Exception) for error in plan.unavailable.values())
    assert (plan.opaque, plan.missing, hash(plan)) is not None


def first_instance(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in tree["manifests"] if "parent" in each)
    return found


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no members": lambda t: t.update(members=[], defaults=[]),
    "a bad default": lambda t: t["defaults"].__setitem__(1, "rubbish"),
    "a bad miss": lambda t: t["missing"].append([0, "../../etc/passwd"]),
    "a miss of member 99": lambda t: t["missing"].append([99, "sha256:" + "1" * 64]),
    "an alternate 99": lambda t: first_instance(t).update(alternates=[99]),
    "a commit of member 99": lambda t: t["commits"].append([99, t["top"]]),
    "a manifest that is missing too": lambda t: t["missing"].append([0, IMAGES[0].digest]),
    "a manifest twice": lambda t: t["manifests"].append(t["manifests"][0]),
    "a manifest that was not committed": lambda t: t["commits"].pop(),
    "another top": lambda t: t.update(top=t["defaults"][1]),
    "a member without a default": lambda t: t["defaults"].__setitem__(1, None),
    "a size of 1 GiB": lambda t: first_instance(t).update(size=2**30),
    "an unknown type": lambda t: first_instance(t).update(media_type="application/x"),
    "a bad digest of a blob": lambda t: first_instance(t)["blobs"][0].update(digest="x"),
    "an unknown key": lambda t: t.update(more=1),
    "another version": lambda t: t.update(version=2),
    "a top that is not available": lambda t: t["unavailable"].append(
        {"member": 0, "error": "x", "message": "x"}
    ),
}


@pytest.mark.parametrize("spoil", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_X18_a_contradiction_is_refused(
    tree: dict[str, Any], spoil: Callable[[dict[str, Any]], object]
) -> None:
    spoiled = copy.deepcopy(tree)
    assert Resolution.from_json(json.dumps(spoiled)).top == tree["top"]
    spoil(spoiled)
    with pytest.raises(ConfigurationError):
        Resolution.from_json(json.dumps(spoiled))


@pytest.mark.parametrize("raw", ["", "{}", "[]", "null", "\ud800", b"\xff", b"[" * 100_000, "{}x"])
def test_X18_what_is_no_resolution_is_refused(raw: str | bytes) -> None:
    with pytest.raises(ConfigurationError):
        Resolution.from_json(raw)
