"""Whether a change makes sense in a state: what does not is refused before it is written down."""

from __future__ import annotations

import json
from collections.abc import Sequence

from index.bundle import Manifest
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel, labels_of
from index.errors import InputError, UnknownLabelError
from index.fields import Fields
from index.labels import check_id
from index.reading import known_fields, says_something
from index.snapshot import Snapshot


def check_changes(snapshot: Snapshot, changes: Sequence[LabelChange]) -> None:
    """Raises InputError for the first change that makes no sense after those before it, UnknownLabelError when it is
    about a label that is not there."""
    there: dict[str, bool] = {}
    for change in changes:
        for label in labels_of(change):
            check_id(label, "label id")
            if label not in there:
                there[label] = snapshot.labels.find(label) is not None
            if not isinstance(change, PutLabel) and not there[label]:
                raise UnknownLabelError(f"label {label!r}: there is no such label")
        match change:
            case PutLabel():
                _check_put_fields(snapshot, change)
                check_put(change, snapshot.bundle.manifest)
                there[change.id] = True
            case RemoveLabel():
                there[change.id] = False
            case Feedback():
                check_feedback(change)
                snapshot.check_fields(change.fields)
            case RemoveExample():
                # Its fields may be those of a model from before, which are part of what it is known by.
                _check_said("example", change.text, change.fields)


def check_put(put: PutLabel, model: Manifest) -> None:
    """Raises InputError when the model could know nothing of the label, or its vector cannot be one."""
    for text in (put.text, *put.examples):
        _check_unicode(f"label {put.id!r}", text, None)
    # Fields of long texts may hold what the log cannot.
    _check_unicode(f"label {put.id!r}", "", put.fields)
    if any(not example.strip() for example in put.examples):
        raise InputError(f"label {put.id!r}: an example is blank; leave it out")
    if put.vector is not None:
        if len(put.vector) != model.dim:
            raise InputError(
                f"label {put.id!r}: its vector has {len(put.vector)} numbers; this model's have {model.dim}"
            )
        if not 1e-12 < sum(value * value for value in put.vector) < 1e30:
            raise InputError(f"label {put.id!r}: its vector is zero, too large or not finite")
    elif not put.examples and not says_something(put.text, known_fields(model.features, put.fields, "label")):
        raise InputError(f"label {put.id!r}: give it a text, fields, examples or a vector")


def check_feedback(feedback: Feedback) -> None:
    """Raises InputError when it says nothing, or that a label is both right and wrong."""
    _check_said("feedback", feedback.text, feedback.fields)
    if not feedback.right and not feedback.wrong:
        raise InputError("feedback: names no label; say which are right, or which are wrong")
    both = set(feedback.right) & set(feedback.wrong)
    if both:
        raise InputError(f"feedback: label {min(both)!r} is both right and wrong; decide")


def _check_said(what: str, text: str, fields: Fields | None) -> None:
    if not says_something(text, fields):
        raise InputError(f"{what}: says nothing; give it a text or fields")
    _check_unicode(what, text, fields)


def _check_unicode(what: str, text: str, fields: Fields | None) -> None:
    try:
        text.encode("utf-8")
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: a text is not valid Unicode (a lone surrogate)") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: its fields cannot be written down ({error})") from error


def _check_put_fields(snapshot: Snapshot, put: PutLabel) -> None:
    try:
        snapshot.check_fields(put.fields, "label")
    except InputError as error:
        raise InputError(f"label {put.id!r}: {error}") from error
