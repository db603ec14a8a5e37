"""A source folder to fill, and what an import makes of it, for the tests of training.importing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from index.errors import InputError
from index.labels import Label
from training.corpus import Corpus, Record, load_corpus, read_labels, read_records
from training.importing.report import ImportReport
from training.importing.source import ImportOptions
from training.importing.writing import import_corpus


class Workplace:
    """`source` is imported into `out`, unless a file in it or another folder is named."""

    def __init__(self, folder: Path) -> None:
        self.source, self.out = folder / "source", folder / "out"
        self.source.mkdir()

    def write(self, name: str, content: str | bytes | list[Any]) -> Path:
        """A file of the source, packed when its name ends in .gz; a list becomes JSON lines."""
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        data = content.encode("utf-8") if isinstance(content, str) else content
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    def run(self, name: str = "", **options: Any) -> ImportReport:
        """Import the source, or the file `name` in it."""
        return import_corpus(self.source / name, self.out, ImportOptions(**options))

    def fails(self, name: str = "", **options: Any) -> str:
        """The one line with which the import is refused; nothing is left behind."""
        with pytest.raises(InputError) as caught:
            self.run(name, **options)
        assert [path for path in self.out.parent.iterdir() if path != self.source] == []
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(f"{self.source}/", "")

    def records(self, split: str = "train") -> list[Record]:
        return list(read_records(self.out / f"{split}.jsonl.gz"))

    def pairs(self, split: str = "train") -> dict[str, tuple[str, ...]]:
        """id -> labels."""
        return {record.id: record.labels for record in self.records(split)}

    def labels(self) -> list[Label]:
        return list(read_labels(self.out / "labels.jsonl.gz"))

    def corpus(self, *splits: str) -> Corpus:
        return load_corpus(self.out, splits or ("train",))
