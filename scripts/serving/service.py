"""A JSON model server as somebody else may have written it.

Usage: uvicorn service:app
"""

import math

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field


class Flower(BaseModel):
    name: str = Field(max_length=40)
    sizes: list[float]
    note: str | None = None


app = FastAPI()


@app.post("/classify")
def classify(flower: Flower):
    if flower.name == "unknown":
        return PlainTextResponse("no such flower: é\n", status_code=404)
    total = sum(flower.sizes)
    return {
        "label": f"{flower.name} \u00e9 \U0001f33c",
        "score": 1 / (1 + math.exp(-total)),
        "echo": flower.note,
        "sizes": flower.sizes,
    }
