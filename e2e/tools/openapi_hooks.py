"""What requests made from the OpenAPI document lack, since nobody can guess it: names and ids of things that are there.

The scenario tells them in WORLD, as JSON: {"collections": {name: [id, ...]}, "spare": [name, ...], "db": name}.
Two of three requests get them; the third keeps what was drawn. What replaces a value follows from that value, so that a
failure is repeated by the same case.
"""

import json
import os
import zlib

import schemathesis

WORLD = json.loads(os.environ["WORLD"])
# A long poll may hold a request for so many seconds.
LONGEST_WAIT = 1


@schemathesis.serializer("application/x-ndjson", "application/sql")
def as_text(context, value):
    """Bodies that are no JSON: the drawn text; of other values their JSON, a line of its own."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {"data": text.encode("utf-8", "surrogatepass")}


def draw(value, choices):
    """One of the choices, or the value itself, by the value's own bytes."""
    number = zlib.crc32(repr(value).encode("utf-8", "surrogatepass"))
    return value if number % 3 == 0 or not choices else choices[number // 3 % len(choices)]


@schemathesis.hook
def before_call(context, case, kwargs):
    path, method = case.operation.path, case.operation.method.upper()
    collection = (case.path_parameters or {}).get("collection")
    if collection is not None:
        # What deletes whole collections is given those that nothing else is asked of.
        destroys = method == "DELETE" and not path.endswith("/records/{id}")
        case.path_parameters["collection"] = draw(collection, WORLD["spare"] if destroys else list(WORLD["collections"]))
    ids = WORLD["collections"].get((case.path_parameters or {}).get("collection"), [])
    for name in ("id", "record"):
        if name in (case.path_parameters or {}):
            case.path_parameters[name] = draw(case.path_parameters[name], ids)
    query = case.query or {}
    if "db" in query:
        query["db"] = draw(query["db"], [WORLD["db"]])
    if "wait" in query:
        query["wait"] = LONGEST_WAIT
    headers = case.headers or {}
    for name in list(headers):
        if name.lower() == "x-dbname":
            headers[name] = draw(headers[name], [WORLD["db"]])
