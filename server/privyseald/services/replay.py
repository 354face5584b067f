"""Requests that were answered before: answered again, before anything is asked or made for them.

The store answers a repeated request in its commit. What comes before that must not go wrong the
second time: the key exists by now, the rotation went on, the consent was used, and a key pair
would be made that nobody wants.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from privyseald.model.policy import Caller
from privyseald.ports import Request, Store

_P = ParamSpec("_P")


class _UseCases(Protocol):
    _store: Store


_S = TypeVar("_S", bound=_UseCases)
_Mutation = Callable[Concatenate[_S, Caller, Request, _P], Coroutine[Any, Any, bytes]]


def replayed(mutation: _Mutation[_S, _P]) -> _Mutation[_S, _P]:
    """Make a mutation return the first answer to a repeated request.

    The request is the same caller's and the same in every byte: it gets what it got before,
    also if it may not ask for it any more.
    """

    @functools.wraps(mutation)
    async def wrapper(
        self: _S, caller: Caller, request: Request, /, *args: _P.args, **kwargs: _P.kwargs
    ) -> bytes:
        answer: bytes | None = await self._store.read(lambda view: view.answer(request))
        if answer is not None:
            return answer
        return await mutation(self, caller, request, *args, **kwargs)

    return wrapper
