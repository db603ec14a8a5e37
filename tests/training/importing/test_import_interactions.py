"""training.importing.interactions: next-item corpora against a plain loop over the sorted interactions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from importing_support import Workplace
from training.corpus import SPLITS, load_corpus

HEADER = "userId,movieId,rating,timestamp\n"
RATINGS = HEADER + "u,1,5,30\nv,1,4,1\nu,2,3,10\nu,ö 3,1,20\nu,1,5,40\nw,2,2,7\nv,9,5,1\n"
MOVIES = 'movieId,title,genres\n2,"Two, the film",a|b\n1,One,(none)\n7,,b\n2,Again,c\nö 3,Drei,日本\n'
ITEMS: dict[str, Any] = {"list_columns": (("genres", "|"),), "missing": ("(none)",)}


def lines(work: Workplace, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress((work.out / f"{name}.jsonl.gz").read_bytes()).splitlines()]


def row(user: str, place: int, item: str, history: Sequence[str]) -> dict[str, Any]:
    said = {"user": user, "history": list(history)}
    return {"id": f"{user}-{place}", "fields": said, "labels": [item], "group": user}


def test_a_small_log_by_hand(work: Workplace) -> None:
    ratings = work.write("ratings.csv.gz", RATINGS)
    movies = work.write("movies.csv.gz", MOVIES)
    report = work.run("ratings.csv.gz", items=movies, **ITEMS)
    # In time, u saw 2, ö 3, 1, 1; v saw 1 and 9 at one time; w but 2.
    assert lines(work, "train") == [row("u", 2, "ö 3", ["2"])]
    assert lines(work, "dev") == [row("u", 3, "1", ["2", "ö 3"])]
    assert lines(work, "test") == [row("u", 4, "1", ["2", "ö 3", "1"]), row("v", 2, "9", ["1"])]
    assert lines(work, "labels") == [
        {"id": "2", "text": "Two, the film", "fields": {"item": "2", "genres": ["a", "b"]}},
        {"id": "1", "text": "One", "fields": {"item": "1"}},
        {"id": "7", "text": "7", "fields": {"item": "7", "genres": ["b"]}},
        {"id": "ö 3", "text": "Drei", "fields": {"item": "ö 3", "genres": ["日本"]}},
        {"id": "9", "text": "9", "fields": {"item": "9"}},
    ]
    assert (report.format, report.labels, report.labels_without_text) == ("interactions", 5, 0)
    assert [file.path for file in report.files] == [ratings, movies]
    assert [change.replace(f"{work.source}/", "") for change in report.changes] == [
        "labels listed twice, the first kept: 1, the first at movies.csv.gz:5",
        "items that the table of items lacks, added with their id as text: 1, the first at ratings.csv.gz: item '9'",
        "users of a single interaction, without a record: 1, the first at ratings.csv.gz: user 'w'",
    ]
    assert load_corpus(work.out, list(SPLITS)).label_ids == ["2", "1", "7", "ö 3", "9"]


def expected(
    log: Sequence[tuple[str, str, float, float]], least: float, history: int, per_user: int | None
) -> Mapping[str, list[dict[str, Any]]]:
    """The splits of (user, item, rating, time) by a loop."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    kept = [entry for entry in log if entry[2] >= least]
    for user in dict.fromkeys(entry[0] for entry in kept):
        items = [entry[1] for entry in sorted((e for e in kept if e[0] == user), key=lambda entry: entry[3])]
        train = []
        for place in range(1, len(items)):
            left = len(items) - 1 - place
            before = items[:place][-history:]
            record = row(user, place + 1, items[place], before)
            if left >= 2:
                train.append(record)
            else:
                found["test" if left == 0 else "dev"].append(record)
        found["train"] += train if per_user is None else train[-per_user:]
    return found


@pytest.mark.parametrize(
    ("least", "history", "per_user"), [(0.0, 100, None), (3.0, 5, None), (2.5, 1, 2), (0.0, 10_000, 1)]
)
def test_a_random_log_against_a_loop(work: Workplace, least: float, history: int, per_user: int | None) -> None:
    generator = np.random.default_rng(3)
    log = [
        (f"u{user}", f"i{item}", float(rating), float(time))
        for user, item, rating, time in zip(
            generator.integers(0, 40, 900).tolist(),
            generator.zipf(1.5, 900).clip(max=60).tolist(),
            generator.integers(1, 6, 900).tolist(),
            generator.integers(0, 60, 900).tolist(),
            strict=True,
        )
    ]
    work.write("ratings.csv", HEADER + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in log))
    minimum = least or None
    report = work.run(format="interactions", history=history, per_user=per_user, min_rating=minimum)
    for name, rows in expected(log, least, history, per_user).items():
        assert lines(work, name) == rows
    kept = [entry for entry in log if entry[2] >= least]
    assert [label.id for label in work.labels()] == list(dict.fromkeys(entry[1] for entry in kept))
    assert ("interactions of a lower rating" in "".join(report.changes)) == (len(kept) < len(log))


def test_a_folder_with_items_beside_and_dates(work: Workplace) -> None:
    dates = {"x": "2024-02-01", "y": "2024-01-31T23:59:59", "z": "2024-02-01T01:00:00+02:00", " x": "2025-01-01"}
    log = "".join(f"A\t{item}\t{date}\n" for item, date in dates.items())
    work.write("interactions.tsv", f"user\titem\tdate\n{log}A\ty\t2026-01-01\n")
    work.write("items.csv", "id,name\ny,Why\nx,Ex\n")
    work.run(format="interactions", field_columns=("name=called",))
    # 01:00 two hours east of Greenwich is 23:00 the day before.
    assert lines(work, "test")[0]["fields"]["history"] == ["z", "y", "x", "x"]
    assert lines(work, "labels")[:2] == [
        {"id": "y", "text": "Why", "fields": {"item": "y", "called": "Why"}},
        {"id": "x", "text": "Ex", "fields": {"item": "x", "called": "Ex"}},
    ]


def test_ids_are_trimmed_and_shortened_alike_everywhere(work: Workplace) -> None:
    long = "ü" * 400
    work.write("log.csv", f"user,item,time\n a , {long},1\na,x,2\na,{long},3\na,x,4\n")
    report = work.run("log.csv", format="interactions")
    item = work.labels()[0].id
    assert len(item.encode()) <= 512
    assert lines(work, "test")[0]["fields"] == {"user": "a", "history": [item, "x", item]}
    assert [label.id for label in work.labels()] == [item, "x"]
    assert "ids trimmed, or shortened to 512 bytes: 3, the first at" in report.changes[0]


def test_a_history_of_a_long_user_keeps_the_newest(work: Workplace) -> None:
    count = 12_000
    rows = "".join(f"a,{number},{number}\n" for number in range(count))
    work.write("log.csv", "user,item,time\n" + rows)
    work.run("log.csv", format="interactions", history=10_000, per_user=1)
    assert lines(work, "test")[0]["fields"]["history"] == [str(n) for n in range(count - 10_001, count - 1)]
    assert [line["labels"] for line in lines(work, "train")] == [[str(count - 3)]]


FAULTS = {
    "user,item,time\na,x,1\na,y,nan\n": "log.csv:3: 'nan' in column 'time' is no time; give numbers or dates",
    "user,item,time\na,x,1\na,y,2024-01-01\n": "log.csv:3: column 'time' has numbers and dates",
    "user,item,time\na,,1\n": "log.csv:2: has no id in column 'item'",
    "user,item,time\n\x01,x,1\n": "log.csv:2: has no id in column 'user'",
    "user,item,time\na,x\n": "log.csv:2: has 2 cells, the header has 3",
    "user,item,time\n": "has no record with a text or fields for train; empty",
    "user,item,time\na,x,1\nb,y,1\n": "for train; users of a single interaction, without a record: 2",
    "user,item\n": "log.csv: has only user, item; name the column with --time-column",
    "user,userId,item,time\n": "log.csv: has user and userId; name the column with --user-column",
    "": "log.csv: has only no columns; name the column with --user-column",
    "user,item,time\na,x,1\na,x,2\na,x,3\na,x,4\n": "has fewer than 2 labels (1)",
}


@pytest.mark.parametrize(("text", "message"), FAULTS.items(), ids=[message[:40] for message in FAULTS.values()])
def test_a_faulty_log_is_refused_by_line(work: Workplace, text: str, message: str) -> None:
    work.write("log.csv", text)
    assert message in work.fails("log.csv", format="interactions")


def test_faulty_ratings_and_items_are_refused_by_line(work: Workplace) -> None:
    work.write("ratings.csv", RATINGS.replace("u,2,3,10", "u,2,good,10"))
    assert "ratings.csv:4: 'good' in column 'rating' is no number" in work.fails(min_rating=1.0)
    items = work.write("i.csv", "movieId,title\n,One\n")
    assert "i.csv:2: has no id in column 'movieId'" in work.fails(items=items)
    assert "i.csv: has no column 'head'" in work.fails(items=items, label_text_column="head")
    assert "becomes the field 'item'" in work.fails(items=items, field_columns=("title=item",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 0}, "--history: must be 1 to 10000, is 0"),
        ({"history": 10_001}, "--history: must be 1 to 10000, is 10001"),
        ({"per_user": 0}, "--per-user: must be 1 or more, is 0"),
        ({"field_columns": ("genres",)}, "--items: give the table that has the columns of the items"),
        ({"label_text_column": "title"}, "--items: give the table"),
        ({"labels_column": "rating"}, "interactions has users, items and times; name them with --user-column"),
        ({"min_rating": 3.0, "rating_column": "stars"}, "has no column 'stars'"),
        ({"format": "table", "per_user": 3}, "table is no interactions, and --per-user is of these"),
        ({"format": "xc", "user_column": "x", "history": 7}, "xc is no interactions, and --user-column, --history is"),
    ],
)
def test_faulty_settings_are_refused(work: Workplace, options: dict[str, Any], message: str) -> None:
    work.write("ratings.csv", RATINGS)
    assert message in work.fails(**{"format": "interactions", **options})


def test_a_place_without_a_log_is_named(work: Workplace) -> None:
    work.write("other.csv", RATINGS)
    assert "has no interactions; looked for interactions.csv" in work.fails(user_column="userId")
