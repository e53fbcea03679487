"""Search for secrets in everything that a command has written."""

from __future__ import annotations

import base64
import gzip
import re
import zlib
from pathlib import Path

from PIL import Image

SECRET = re.compile(rb"SECRET\d*", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{200,}")


def _unpacked(content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return b""


def secrets_in(file: Path) -> set[bytes]:
    """Return the secrets in a file's name and bytes, unpacked, in images of a page and in texts of a picture."""
    content = file.read_bytes()
    parts = [str(file).encode(), content, _unpacked(content)]
    if file.suffix == ".html":
        found = [base64.b64decode(text + b"==") for text in _BASE64.findall(content)]
        parts += [*found, *map(_unpacked, found)]
    if file.suffix == ".png":
        with Image.open(file) as image:
            image.load()
            parts.append(repr(image.info).encode())
    return {secret for part in parts for secret in SECRET.findall(part)}


def files_with_secrets(output: Path, *suffixes: str) -> dict[str, set[bytes]]:
    """Return the secrets of each file in OUTPUT that has any; files with other suffixes only, if some are given."""
    files = (file for file in output.rglob("*") if file.is_file() and file.suffix not in suffixes)
    found = {str(file.relative_to(output)): secrets_in(file) for file in files}
    return {name: secrets for name, secrets in found.items() if secrets}
