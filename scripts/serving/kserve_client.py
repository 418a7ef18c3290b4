"""Calls the front end with KServe's own client of the Open Inference Protocol.

Usage: kserve_client.py ADDRESS < INPUT (run by check.py)

INPUT is JSON: `rows`, which are lists of four numbers, and `labels`, the expected answer
to each row. The model is called iris.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

ADDRESS = sys.argv[1]
GIVEN = json.load(sys.stdin)


def expect(fact, what):
    if not fact:
        raise SystemExit(f"kserve_client: {what}")


def request(rows, datatype="FP64", binary=False, shape=None):
    tensor = InferInput("input", shape or list(np.shape(rows)), datatype)
    if binary:
        tensor.set_data_from_numpy(np.array(rows), binary_data=True)
    else:
        tensor.data = np.array(rows).flatten().tolist()
    return InferRequest(model_name="iris", infer_inputs=[tensor], request_id="call 7")


async def refused(client, what, status, data, model="iris"):
    try:
        await client.infer(ADDRESS, data, model_name=model)
    except httpx.HTTPStatusError as error:
        expect(error.response.status_code == status, f"{what}: {error}")
        # The client puts the error of the protocol before the status.
        expect(error.response.json()["error"] in str(error), f"{what}: no message: {error}")
    else:
        expect(False, f"{what} was accepted")


async def main():
    rows, labels = GIVEN["rows"], GIVEN["labels"]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        expect(await client.is_server_live(ADDRESS), "the server is not live")
        expect(await client.is_server_ready(ADDRESS), "the server is not ready")
        expect(await client.is_model_ready(ADDRESS, "iris"), "the model is not ready")
        expect(not await client.is_model_ready(ADDRESS, "rose"), "an unknown model is ready")
        for count in (1, 1000):
            values = np.resize(rows, (count, 4))
            reply = await client.infer(ADDRESS, request(values), model_name="iris")
            expect((reply.id, reply.model_name) == ("call 7", "iris"), "the id and the model")
            [output] = reply.outputs
            expect((output.datatype, list(output.shape)) == ("INT64", [count]), "type and shape")
            answers = output.as_numpy().tolist()
            expect(answers == np.resize(labels, count).tolist(), f"{count} rows differ")
        three = [row[:3] for row in rows[:2]]
        await refused(client, "three columns", 422, request(three))
        await refused(client, "wrong shape", 400, request(rows[:2], shape=[3, 4]))
        await refused(client, "wrong type", 400, request(rows[:2], datatype="INT32"))
        await refused(client, "unknown type", 400, request(rows[:2], datatype="FLOAT"))
        texts = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ["1"] * 4}]}
        await refused(client, "texts", 400, texts)
        await refused(client, "no input", 400, {"inputs": []})
        await refused(client, "binary data", 400, request(rows[:2], binary=True))
        await refused(client, "unknown model", 404, request(rows[:1]), model="rose")
        await refused(client, "too many rows", 413, request(np.resize(rows, (2000, 4))))
    print("KServe's client: batches of 1 and 1000 rows, wrong shapes, wrong types, unknown model, "
          "binary data, too many rows")  # fmt: skip


asyncio.run(main())
