"""`POST /v1/predict`: texts and fields in, ranked labels out."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from index.errors import InputError
from index.label_filter import LabelFilter
from index.snapshot import Snapshot
from service.batcher import Ranked, are_few
from service.bodies import read_body
from service.errors import invalid_fields, too_large
from service.live import live
from service.openapi import problems, takes
from service.schemas import PredictAnswer, PredictInput, Prediction, PredictRequest, RankedLabel
from service.settings import Settings

router = APIRouter(tags=["predict"])
_ANSWER = TypeAdapter(PredictAnswer)
# More than these are written out on a thread, for other requests would feel it.
_FEW_LABELS = 1000


@router.post(
    "/v1/predict",
    summary="Rank the labels of one or many texts",
    responses={200: {"model": PredictAnswer}, **problems(400, 413, 415, 422)},
    openapi_extra=takes(PredictRequest),
)
async def predict(request: Request) -> Response:
    """Best labels first, at most `top_k` for each input. The answer names bundle, model and change it was made from."""
    served = live(request)
    asked = await read_body(request, PredictRequest, inputs=served.settings.max_inputs)
    if asked.min_change is not None:
        await served.reach(asked.min_change)
    snapshot, fields, only = served.collection.snapshot, [one.fields for one in asked.inputs], _filter(asked)
    if are_few(fields):
        _check(asked.inputs, served.settings, snapshot)
    else:
        await served.in_batch_thread(lambda: _check(asked.inputs, served.settings, snapshot))
    ranked = await served.batcher.predict([one.text or "" for one in asked.inputs], asked.top_k, fields, only)
    few = len(asked.inputs) * asked.top_k <= _FEW_LABELS
    answer = _answer(asked, ranked) if few else await served.in_batch_thread(lambda: _answer(asked, ranked))
    return Response(answer, media_type="application/json")


def _filter(asked: PredictRequest) -> LabelFilter | None:
    try:
        return LabelFilter.parse(asked.filter) if asked.filter else None
    except InputError as error:
        raise invalid_fields("#/filter", error) from error


def _check(inputs: Sequence[PredictInput], settings: Settings, snapshot: Snapshot) -> None:
    for place, one in enumerate(inputs):
        length = len(one.text or "")
        if length > settings.max_text_characters:
            raise too_large(f"characters of input {place}", settings.max_text_characters, length)
        # Here already, for those whose texts are predicted together must not fail together.
        try:
            snapshot.check_fields(one.fields)
        except InputError as error:
            raise invalid_fields(f"#/inputs/{place}/fields", error) from error


def _answer(asked: PredictRequest, ranked: Ranked) -> bytes:
    manifest = ranked.snapshot.bundle.manifest
    predictions = [
        Prediction(one.id, _labels(ranked, place, asked.threshold or 0.0)) for place, one in enumerate(asked.inputs)
    ]
    answer = PredictAnswer(predictions, manifest.bundle, manifest.model, ranked.snapshot.change)
    return _ANSWER.dump_json(answer, exclude_none=True)


def _labels(ranked: Ranked, place: int, threshold: float) -> list[RankedLabel]:
    labels = []
    rows, scores = ranked.predictions.rows[place].tolist(), ranked.predictions.scores[place].tolist()
    for row, score, chance in zip(rows, scores, ranked.probabilities[place].tolist(), strict=True):
        # Judged as it is shown, so that nobody sees a probability below the threshold that was asked for.
        probability = round(chance, 6)
        if row >= 0 and probability >= threshold:
            label = ranked.snapshot.labels[row]
            labels.append(RankedLabel(label.id, label.text, round(score, 6), probability))
    return labels
