"""How fast texts and fields become table rows on one core, and, given a collection, unit vectors in one process.

    python benchmarks/featurizing.py [COLLECTION] [--corpus CORPUS]

Texts are generated, or the training records' of a corpus. A collection must be of a model that reads features (not of a
transformer) and have no fields that it cannot do without. Writes benchmarks/results/featurizing.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from index.bundle import Bundle
from index.bundles import current_bundle
from index.features import FeatureSpec, Featurizer
from index.field_spec import parse_fields
from index.fields import Fields
from index.files import write_json
from machine import RESULTS, describe

FIELDS = {
    "age": {"kind": "numeric", "edges": [float(edge) for edge in range(31)]},
    "brand": {"kind": "categorical", "probes": 2},
    "tags": {},
    "title": {"kind": "text"},
    "watched": {"kind": "history"},
}
_LETTERS = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
_MEASURED = 3_000


def generated_texts(count: int, random: np.random.Generator) -> list[str]:
    """Of 8 words on average, drawn by Zipf's law out of 20,000 words of 1 to 12 letters."""
    share = 1 / np.arange(1, 27)
    words = ["".join(random.choice(_LETTERS, n, p=share / share.sum())) for n in random.integers(1, 13, 20_000)]
    chance = 1 / np.arange(1, len(words) + 1)
    lengths = random.integers(3, 14, count)
    drawn = iter(random.choice(len(words), int(lengths.sum()), p=chance / chance.sum()).tolist())
    return [" ".join(words[next(drawn)] for _ in range(n)) for n in lengths]


def corpus_texts(folder: Path) -> list[str]:
    """Texts of the training records."""
    packed = folder / "train.jsonl.gz"
    with gzip.open(packed, "rt") if packed.exists() else (folder / "train.jsonl").open() as lines:
        return [json.loads(line).get("text") or "" for line in lines]


def generated_fields(count: int, texts: Sequence[str], random: np.random.Generator) -> list[Fields | None]:
    return [
        {
            "age": int(random.integers(0, 40)),
            "brand": f"brand {random.zipf(1.5) % 1000}",
            "tags": [f"tag {tag}" for tag in random.integers(0, 300, 3)],
            "title": texts[int(random.integers(0, len(texts)))],
            "watched": [f"m{item}" for item in random.integers(0, 5000, 20)],
        }
        for _ in range(count)
    ]


def per_second(count: int, work: Callable[[], object], repeats: int = 7) -> int:
    """`count` over the least of several times: what else runs on the machine can only add to them."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return round(count / min(seconds))


def latency(work: Callable[[int], object], calls: int) -> dict[str, float]:
    """Of work(0), work(1) ...: median and 99th percentile, in microseconds."""
    micros = []
    for call in range(calls):
        began = time.perf_counter()
        work(call)
        micros.append((time.perf_counter() - began) * 1e6)
    return {f"p{share}_us": round(float(np.percentile(micros, share)), 1) for share in (50, 99)}


def single(featurizer: Featurizer, texts: Sequence[str], fields: Sequence[Fields | None] | None) -> dict[str, float]:
    """One text a call, after others that bring the words which are common into memory."""
    said = [None] * len(texts) if fields is None else [[one] for one in fields]
    for place in range(_MEASURED, len(texts)):
        featurizer([texts[place]], said[place])
    return latency(lambda call: featurizer([texts[call]], said[call]), _MEASURED)


def new_words(spec: FeatureSpec, texts: Sequence[str]) -> dict[str, float]:
    """One text a call, none of whose words a featurizer has met."""
    featurizers = [Featurizer(spec) for _ in range(500)]
    return latency(lambda call: featurizers[call]([texts[call]]), len(featurizers))


def featurizing(texts: list[str], random: np.random.Generator) -> dict[str, object]:
    spec = FeatureSpec()
    featurizer = Featurizer(spec)
    known = np.zeros(spec.rows, dtype=np.bool_)
    known[featurizer(texts[_MEASURED:]).rows] = True
    fielded = FeatureSpec(fields=parse_fields(FIELDS), crosses=(("age", "brand"),))
    fields = generated_fields(len(texts), texts, random)
    long = " ".join(" ".join(texts).split()[:10_000])
    longest = Featurizer(FeatureSpec(characters=len(long)))
    separate = FeatureSpec(fields=fielded.fields, crosses=fielded.crosses, separate=True, probes=2)
    return {
        "texts": len(texts),
        "words_per_text": round(sum(len(text.split()) for text in texts) / len(texts), 1),
        "rows_per_text": round(float(featurizer(texts).lengths.mean()), 1),
        "bulk_texts_per_second": per_second(len(texts), lambda: featurizer(texts)),
        "bulk_with_known": per_second(len(texts), lambda: Featurizer(spec, known=known)(texts)),
        "bulk_with_5_fields": per_second(len(texts), lambda: Featurizer(fielded)(texts, fields), 3),
        "bulk_in_slots_of_2_probes": per_second(len(texts), lambda: Featurizer(separate)(texts, fields), 3),
        "single": single(Featurizer(spec), texts, None),
        "single_of_new_words": new_words(spec, texts),
        "single_with_known": single(Featurizer(spec, known=known), texts, None),
        "single_with_5_fields": single(Featurizer(fielded), texts, fields),
        "text_of_10000_tokens_ms": round(1e3 / per_second(1, lambda: longest([long]), 30), 2),
    }


def encoding(collection: Path, texts: list[str]) -> dict[str, object]:
    """Texts to unit vectors by the collection's query tower, one thread."""
    encoder = Bundle.open(current_bundle(collection)).queries
    for text in texts[_MEASURED:]:
        encoder.texts([text])
    assert isinstance(encoder.featurizer, Featurizer), "the collection's model reads no features"
    items = encoder.featurizer(texts)
    return {
        "features": encoder.featurizer.spec.to_json(),
        "dim": encoder.dim,
        "single_featurise_and_encode": latency(lambda call: encoder.texts([texts[call]]), _MEASURED),
        "bulk_featurised_before": per_second(len(texts), lambda: encoder.items(items)),
        "bulk_featurise_and_encode": per_second(len(texts), lambda: encoder.texts(texts)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", nargs="?", type=Path)
    parser.add_argument("--corpus", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    texts = corpus_texts(arguments.corpus)[:20_000] if arguments.corpus else generated_texts(15_000, random)
    if len(texts) < 2 * _MEASURED:
        sys.exit(f"{arguments.corpus}: has {len(texts)} texts; {2 * _MEASURED} or more are needed")
    result = {
        "machine": describe(),
        "corpus": arguments.corpus.name if arguments.corpus else "generated",
        "featurizing": featurizing(texts, random),
        "encoding": encoding(arguments.collection, texts) if arguments.collection else None,
    }
    print(json.dumps(result, indent=2))
    write_json(RESULTS / "featurizing.json", result)


if __name__ == "__main__":
    main()
