"""What adafv uses of Ray, in one process and in turn: actors that load, answer and die when a test says so."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


class exceptions:
    class RayError(Exception):
        pass


@dataclass(eq=False)
class Ref:
    call: Callable[[], Any]


@dataclass
class FakeRay:
    """A cluster.

    Args:
        dies: told what an actor is asked and its arguments, whether the actor dies of it.
        room: for actors; further ones never load.
        held: of each node.
    """

    dies: Callable[[str, Sequence[Any]], bool] = lambda name, args: False
    room: int = 1_000
    held: list[dict[str, float]] = field(default_factory=lambda: [{"CPU": 1.0}])
    started: int = 0
    killed: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    exceptions = exceptions
    __spec__ = object()

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": one} for one in self.held]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(len(self.held))}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: type[Any]) -> Any:
        return _Remote(self, kind)

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        ready = [ref for ref in refs if ref.call is not _never]
        return ready[-1:], []  # the last first: answers come back in any order

    def get(self, ref: Ref, timeout: float) -> Any:
        return ref.call()

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


@dataclass
class _Remote:
    ray: FakeRay
    kind: type[Any]

    def options(self, **chosen: Any) -> _Remote:
        self.ray.options = chosen
        return self

    def remote(self, *args: Any) -> Any:
        self.ray.started += 1
        return _Actor(self.ray, self.kind(*args), self.ray.started <= self.ray.room)


class _Actor:
    def __init__(self, ray: FakeRay, it: Any, has_room: bool) -> None:
        self._ray, self._it, self._has_room, self._dead = ray, it, has_room, False

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any) -> Ref:
            return Ref(lambda: self._call(name, args)) if self._has_room else Ref(_never)

        return type("Method", (), {"remote": staticmethod(remote)})

    def _call(self, name: str, args: Sequence[Any]) -> Any:
        if self._dead or self._ray.dies(name, args):
            self._dead = True
            raise exceptions.RayError("the actor died")
        try:
            found = getattr(self._it, name)(*pickle.loads(pickle.dumps(args)))
        except Exception as error:
            raise exceptions.RayError(str(error)) from error
        return pickle.loads(pickle.dumps(found))


def _never() -> None:
    raise AssertionError("nobody waits for it")
