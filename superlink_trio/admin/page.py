"""The page, and what a browser may load and run for it: what stands in it, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


def load_page() -> tuple[str, str]:
    """Read the page; give it, and its Content-Security-Policy.

    Source: https://www.w3.org/TR/CSP3/
    """
    html = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "base-uri": "'none'",
        "connect-src": "'self'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "img-src": "data:",  # an icon of nothing keeps browsers from asking for one
    }
    for tag, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        policy[f"{tag}-src"] = f"'sha256-{digest}'"
    return html, "; ".join(f"{directive} {source}" for directive, source in policy.items())
