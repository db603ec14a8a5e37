"""`/v1/info`, `/livez` and `/readyz`: what is served, within which limits, and whether it can be."""

from __future__ import annotations

import platform
from importlib.metadata import version

from fastapi import APIRouter
from starlette.requests import Request

from index.build import IndexReport
from index.device import faiss_versions
from index.fields import MOST_VALUES
from index.labels import MAX_ID_BYTES
from index.snapshot import Snapshot
from service.live import LiveCollection, live
from service.openapi import problems
from service.schemas import MAX_PAGE, MAX_TOP_K, FieldInfo, Health, IndexInfo, Info, Limits, UnseenValues

router = APIRouter(tags=["status"])
_NAMED = ("labelspace", "onnxruntime", "numpy", "fastapi", "uvicorn")


@router.get("/v1/info", summary="What is served", responses=problems())
async def info(request: Request) -> Info:
    """Bundle, model, counts, the newest change, every limit in force, and the versions of what runs."""
    served = live(request)
    snapshot = served.collection.snapshot
    manifest = snapshot.bundle.manifest
    return Info(
        bundle=manifest.bundle,
        model=manifest.model,
        created=manifest.created,
        change=snapshot.change,
        labels=len(snapshot.labels),
        examples=0 if snapshot.memory is None else len(snapshot.memory),
        dim=manifest.dim,
        fields=tuple(FieldInfo(field.name, field.kind, field.tower) for field in snapshot.fields),
        unseen_values=_unseen(snapshot),
        index=_built(manifest.index),
        memory=None if manifest.memory is None else _built(manifest.memory),
        limits=_limits(served),
        versions={**{name: version(name) for name in _NAMED}, **faiss_versions(), "python": platform.python_version()},
    )


@router.get("/livez", summary="Does it live?", responses=problems())
async def livez() -> Health:
    """200 as long as the process answers at all."""
    return Health("alive")


@router.get("/readyz", summary="Can it predict?", responses=problems())
async def readyz(request: Request) -> Health:
    """200 once the collection is open, 503 before and after."""
    _ = live(request).collection
    return Health("ready")


def _built(report: IndexReport) -> IndexInfo:
    return IndexInfo(report.factory, report.recall, report.vectors)


def _unseen(snapshot: Snapshot) -> UnseenValues | None:
    found = snapshot.bundle.queries.unseen
    return None if found is None else UnseenValues(found.looked_up, found.unseen)


def _limits(served: LiveCollection) -> Limits:
    settings, snapshot = served.settings, served.collection.snapshot
    histories = [field.length for field in snapshot.fields if field.kind == "history" and field.of("query")]
    return Limits(
        body_bytes=settings.max_body_bytes,
        inputs=settings.max_inputs,
        text_characters=settings.max_text_characters,
        text_characters_read=snapshot.bundle.manifest.features.characters,
        field_values=MOST_VALUES,
        history_values=max(histories, default=None),
        top_k=MAX_TOP_K,
        examples=settings.max_examples,
        label_id_bytes=MAX_ID_BYTES,
        page=MAX_PAGE,
    )
