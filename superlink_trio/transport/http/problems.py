"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from superlink_trio.rpc import Refused, Status

MEDIA_TYPE = "application/problem+json"

# A client that is told to come back later should not come back at once.
_RETRY_AFTER = "3"

STATUS: Mapping[Status, HTTPStatus] = {
    Status.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Status.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Status.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Status.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Status.FAILED_PRECONDITION: HTTPStatus.PRECONDITION_FAILED,
    Status.RESOURCE_EXHAUSTED: HTTPStatus.INSUFFICIENT_STORAGE,
    Status.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    Status.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Status.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Status.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
}
"""How each refusal is said over HTTP."""


class Problem(Exception):
    """An answer other than 200, and what it says to people.

    Source: RFC 9457. The type is left out, which means that the status says it all.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self._headers = headers or {}

    @classmethod
    def of(cls, refusal: Refused) -> Problem:
        """Translate an API's refusal."""
        return cls(STATUS[refusal.status], refusal.message)

    @property
    def body(self) -> bytes:
        """The document."""
        document = {
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        return json.dumps(document).encode()

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Its header fields."""
        fields = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(self.body)),
            **self._headers,
        }
        if self.status is HTTPStatus.SERVICE_UNAVAILABLE:
            fields["retry-after"] = _RETRY_AFTER
        return [(name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()]


def too_large(limit: int) -> Problem:
    """Give what is answered to a request that is larger than `limit` bytes."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is larger than {limit} bytes")
