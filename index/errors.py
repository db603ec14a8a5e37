"""What can go wrong, named for what the reader has to do next."""

from __future__ import annotations


class LabelspaceError(Exception):
    """The work failed; the message is one line that says what, where and what to do."""

    exit_code = 1


class InputError(LabelspaceError):
    """The call or a file given to it is wrong: change it and call again."""

    exit_code = 2


class BundleError(LabelspaceError):
    """A run, bundle or collection is damaged, incomplete or of another version: restore it or write it anew."""

    exit_code = 2


class UnknownLabelError(InputError):
    """No label of this id is there."""


class ConflictError(LabelspaceError):
    """Someone else was faster: look at what is there now, then decide again."""


class LogMovedError(ConflictError):
    """The log has changes newer than those that the writer knew of."""


def json_kind(value: object) -> str:
    """What JSON calls a parsed value, for a message of ours."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object")


def first_line(error: BaseException) -> str:
    """One line of an exception from elsewhere, for a message of ours."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
