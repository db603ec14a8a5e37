"""The dev split that a bundle keeps: at most a thousand records, always the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from index.dev_queries import DevQuery
from index.errors import InputError
from index.field_spec import FieldSpec
from tests_support import write_corpus, write_lines
from training.dev_split import dev_split


def test_a_dev_split_is_thinned_to_a_thousand_records_the_same_ones_every_time(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=10)
    rows: list[dict[str, object]] = [
        {"id": f"d{number}", "text": f"text {number}", "labels": ["s1"], "exclude": ["s2"], "fields": {"lang": "de"}}
        for number in range(1500)
    ]
    write_lines(corpus / "dev.jsonl", rows)
    found = dev_split(corpus, (FieldSpec("lang"),))
    assert len(found) == len({query.text for query in found}) == 1000
    assert found == dev_split(corpus, (FieldSpec("lang"),))
    assert found[0] == DevQuery(found[0].text, {"lang": "de"}, ("s1",), ("s2",))
    assert dev_split(corpus)[0].fields is None
    (corpus / "dev.jsonl").unlink()
    with pytest.raises(InputError, match="has no dev split"):
        dev_split(corpus)
    assert len(dev_split(corpus, (), 0.3)) in range(1, 9)
