"""What the environment says of the network: proxies, and how to do without them on this machine itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["proxy", "without_proxies"]

#: By which variables a proxy is named, in capitals or small letters.
PROXIES = ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY")
#: By which a host is named that is reached without one.
EXCEPT = ("NO_PROXY", "no_proxy")


def proxy() -> str | None:
    """The variable that names a proxy; its value may hold a password."""
    return next((name for name in PROXIES if os.environ.get(name) or os.environ.get(name.lower())), None)


@contextmanager
def without_proxies() -> Iterator[None]:
    """Within it, no host is reached through a proxy: one may know nothing of this machine, or need a package that isn't there."""
    before = {name: os.environ.get(name) for name in EXCEPT}
    os.environ.update(dict.fromkeys(EXCEPT, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
