"""The files of an import: hashed and their encoding found in a first pass, then read line by line."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from index.errors import InputError
from index.files import sha256_of
from training.progress import Progress

_MEBIBYTE = 1 << 20
_LONG = 32 * _MEBIBYTE
_LINES_PER_LOOK = 1000
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file with the hash of its bytes; malformed: the first line that is not UTF-8, None when all are.

    encoding: how its text, unpacked, is read; empty for what is no text.
    """

    path: Path
    size: int
    sha256: str
    encoding: str = ""
    malformed: int | None = None


def check_encoding(name: str | None) -> None:
    """Raises InputError for an encoding that is unknown or does not end lines as ASCII does."""
    if name is None:
        return
    try:
        plain = "a\n".encode(name) == b"a\n"
    except (LookupError, UnicodeError):
        plain = False
    if not plain:
        raise InputError(f"--encoding: {name!r} is not known or not ASCII's superset; write the files as UTF-8")


def check_name(path: Path) -> None:
    """Raises InputError for a name whose bytes are no text: it could not be written down."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!a}: is a name that is not valid Unicode; rename it") from error


def open_text(path: Path, encoding: str | None = None) -> InputFile:
    """Read a text file once: its hash and, without a given encoding, UTF-8 where all of it is, else Latin-1.

    A name ending in .gz is unpacked. Raises InputError when it cannot be read, is damaged, or is UTF-16.
    """
    size, digest = _hashed(path)
    malformed = None
    with closing(_byte_lines(path)) as lines:
        for number, line in lines:
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InputError(f"{path}: is UTF-16; write it as UTF-8")
            if encoding is None and not _is_utf8(line):
                malformed = number
                break
    return InputFile(path, size, digest, encoding or ("utf-8" if malformed is None else "latin-1"), malformed)


def open_binary(path: Path) -> InputFile:
    """The hash of a file that is no text. Raises InputError when it cannot be read."""
    return InputFile(path, *_hashed(path))


def read_lines(file: InputFile) -> Generator[tuple[int, str]]:
    """(line number from 1, line without its end), streamed; a byte order mark is left out.

    Raises InputError naming file and line for bytes that are not of the file's encoding.
    """
    for number, line in _byte_lines(file.path, show=True):
        try:
            text = line.decode(file.encoding)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file.path}:{number}: is not valid {file.encoding} (byte {error.start + 1}); give another --encoding"
            ) from error
        if number == 1:
            text = text.removeprefix(_BOM)
        yield number, text.removesuffix("\n").removesuffix("\r")


def peek(path: Path) -> str:
    """The first line that is not blank, whatever its encoding, without a byte order mark; empty when there is none.

    Raises InputError when the file cannot be read.
    """
    with closing(_byte_lines(path)) as lines:
        found = (line.removeprefix(codecs.BOM_UTF8).decode("latin-1").rstrip("\r\n") for _, line in lines)
        return next((line for line in found if line.strip()), "")


def read_text(file: InputFile) -> str:
    """The whole of a small file, its lines ended by line feeds."""
    return "\n".join(line for _, line in read_lines(file))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _hashed(path: Path) -> tuple[int, str]:
    check_name(path)
    try:
        return path.stat().st_size, sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from error


def _byte_lines(path: Path, *, show: bool = False) -> Generator[tuple[int, bytes]]:
    """Numbered lines with their ends, unpacked; `show` tells how far a long file is read."""
    number = 0
    try:
        with path.open("rb") as raw:
            packed = path.suffix == ".gz"
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw)
            size = path.stat().st_size
            bar = Progress(path.name, size // _MEBIBYTE, "MiB") if show and size > _LONG else None
            with bar or nullcontext():
                seen = 0
                for number, line in enumerate(file, 1):
                    yield number, line
                    if bar is not None and number % _LINES_PER_LOOK == 0:
                        now = raw.tell() // _MEBIBYTE
                        bar.advance(now - seen)
                        seen = now
                if bar is not None:
                    bar.advance(size // _MEBIBYTE - seen)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: is damaged or no gzip file (after line {number}: {error}); fetch it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from error
