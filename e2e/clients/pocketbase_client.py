"""PocketBase's community client for Python, as PyPI has it, against a VSKI master and its replica.

Run by the scenario e2e/tests/it/clients.rs, which starts both and passes their addresses, an admin and the example
data. Each step prints what it has shown; the first thing that is not so ends with an error and exit code 1.
"""

import json
import os
import time
import warnings
from pathlib import Path

import httpx
from pocketbase import Client
from pocketbase.errors import ClientResponseError
from pocketbase.models import FileUpload

COUNTRIES, CITIES = 40, 120
FLAG = b'<svg xmlns="http://www.w3.org/2000/svg" width="3" height="2"/>'


def step(text):
    print(f"ok: {text}", flush=True)


def refused(status, call, *args, **named):
    """The answer to a call that has to be refused."""
    try:
        call(*args, **named)
    except ClientResponseError as error:
        assert error.status == status, (error.status, error.data)
        return error.data
    raise AssertionError(f"not refused with {status}: {call} {args}")


class Nodes:
    """Clients whose reads see what any of them has written: by the client's own hooks."""

    def __init__(self):
        self.position = None

    def client(self, url):
        client = Client(url)
        client.before_send, client.after_send = self.ask, self.remember
        return client

    def ask(self, path, config):
        if self.position and config.get("method") == "GET":
            config.setdefault("headers", {})["X-Vski-Min-Position"] = self.position
        return path, config

    def remember(self, response, data, _config):
        self.position = response.headers.get("X-Vski-Position", self.position)
        return data


def admins(pb):
    email, password = os.environ["ADMIN_EMAIL"], os.environ["ADMIN_PASSWORD"]
    old = pb.send("/api/admins/auth-with-password", {"method": "POST", "body": {"identity": email, "password": password}})
    assert old["token"] and old["admin"]["email"] == email, old
    step("an admin logs in at /api/admins")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pb.admins.auth_with_password(email, password)
    assert pb.auth_store.is_valid
    refused(400, pb.collection("_superusers").auth_with_password, email, "wrong password")
    answer = pb.collection("_superusers").auth_with_password(email, password)
    assert answer.is_valid and answer.record.email == email and pb.auth_store.model.id == answer.record.id
    refreshed = pb.collection("_superusers").auth_refresh()
    assert refreshed.is_valid and pb.auth_store.token == refreshed.token
    listed = pb.collection("_superusers").get_full_list()
    assert [admin.email for admin in listed] == [email]
    step("an admin logs in at _superusers, refreshes, lists admins; a wrong password is 400")


def collections(pb):
    countries = pb.collections.create({
        "name": "countries", "type": "base", "listRule": "", "viewRule": "",
        "fields": [
            {"name": "iso", "type": "text", "required": True, "pattern": "^[A-Z]{2}$"},
            {"name": "name", "type": "text", "required": True},
            {"name": "continent", "type": "select", "values": ["AF", "AN", "AS", "EU", "NA", "OC", "SA"], "maxSelect": 1},
            {"name": "population", "type": "number", "onlyInt": True, "min": 0},
            {"name": "flag", "type": "file", "maxSelect": 1, "maxSize": 10000},
        ],
        "indexes": ["CREATE UNIQUE INDEX countries_iso ON countries (iso)"],
    })
    assert countries.is_base() and countries.name == "countries" and countries.create_rule is None
    pb.collections.create({
        "name": "cities", "type": "base", "listRule": "", "viewRule": "", "createRule": "@request.auth.id != ''",
        "fields": [
            {"name": "name", "type": "text", "required": True},
            {"name": "country", "type": "relation", "collectionId": countries.id, "maxSelect": 1, "required": True},
            {"name": "population", "type": "number"},
            {"name": "timezone", "type": "text"},
        ],
    })
    users = pb.collections.create({
        "name": "travellers", "type": "auth", "createRule": "", "listRule": "id = @request.auth.id",
        "viewRule": "id = @request.auth.id", "updateRule": "id = @request.auth.id",
        "fields": [{"name": "name", "type": "text"}, {"name": "avatarColour", "type": "text"}],
    })
    assert users.is_auth()
    pb.collections.create({
        "name": "notes", "type": "base", "listRule": "traveller = @request.auth.id || public = true",
        "viewRule": "traveller = @request.auth.id || public = true", "createRule": "traveller = @request.auth.id",
        "updateRule": "traveller = @request.auth.id", "deleteRule": "traveller = @request.auth.id",
        "fields": [
            {"name": "text", "type": "text"}, {"name": "public", "type": "bool"},
            {"name": "traveller", "type": "relation", "collectionId": users.id, "maxSelect": 1},
        ],
    })
    names = {collection.name for collection in pb.collections.get_full_list(query_params={"sort": "name"})}
    assert {"countries", "cities", "travellers", "notes"} <= names, names
    changed = pb.collections.update("cities", {"updateRule": "@request.auth.id != ''"})
    assert changed.update_rule and pb.collections.get_one("cities").id == changed.id
    exported = pb.send("/api/collections", {"params": {"filter": "name = 'notes'"}})["items"]
    assert pb.collections.import_collections(exported)
    step("collections with a relation are made, listed, changed and imported")


def records(pb, data):
    rows = [json.loads(line) for line in (data / "countries.ndjson").read_text().splitlines()]
    ids = {}
    for row in rows[:COUNTRIES]:
        body = {key: row[key] for key in ("iso", "name", "continent", "population")}
        ids[row["iso"]] = pb.collection("countries").create(body).id
    rows = [json.loads(line) for line in (data / "cities.ndjson").read_text().splitlines()]
    rows = [row for row in rows if row["country"] in ids][:CITIES]
    cities = pb.collection("cities")
    for row in rows:
        body = {"name": row["name"], "country": ids[row["country"]], "population": row["population"], "timezone": row["timezone"]}
        made = cities.create(body, {"expand": "country", "fields": "*,expand.country.iso"})
        assert made.expand["country"].iso == row["country"] and made.collection_name == "cities"
    step(f"{COUNTRIES} countries and {CITIES} of their cities are made")

    problem = refused(400, pb.collection("countries").create, {"iso": "XYZ", "continent": "EU", "population": -1})
    assert {"iso", "name", "population"} <= set(problem["data"]) and problem["status"] == 400, problem
    problem = refused(400, pb.collection("countries").create, {"iso": rows[0]["country"], "name": "Twice"})
    assert problem["data"]["iso"]["code"] == "validation_not_unique", problem
    step("what is wrong with a record is told by field")

    one = cities.get_first_list_item(pb.filter("name = {:name}", {"name": rows[3]["name"]}))
    grown = cities.update(one.id, {"population+": 5})
    assert grown.population == one.population + 5 and cities.get_one(one.id).population == grown.population
    gone = cities.create({"name": "O'Brien \"Ghost\" Town", "country": ids[rows[0]["country"]], "population": 1})
    quoted = cities.get_first_list_item(pb.filter("name = {:name}", {"name": "O'Brien \"Ghost\" Town"}))
    assert quoted.id == gone.id and cities.delete(gone.id) is True
    refused(404, cities.get_one, gone.id)
    refused(404, cities.get_first_list_item, f"id = '{gone.id}'")
    step("records are changed, found by quoted text, and deleted")
    return rows


def reads(pb, rows):
    """What any caller may read: the same on every node."""
    cities, countries = pb.collection("cities"), pb.collection("countries")
    page = cities.get_list(2, 25, {"sort": "-population,name", "expand": "country"})
    assert (page.page, page.per_page, page.total_items, page.total_pages) == (2, 25, CITIES, -(-CITIES // 25)), vars(page)
    populations = [city.population for city in page.items]
    assert len(populations) == 25 and populations == sorted(populations, reverse=True)
    assert all(city.expand["country"].id == city.country for city in page.items)
    iso = rows[0]["country"]
    of_one = cities.get_full_list(10, {"filter": pb.filter("country.iso = {:iso}", {"iso": iso}), "sort": "id"})
    assert len(of_one) == sum(row["country"] == iso for row in rows)
    large = cities.get_full_list(query_params={"filter": "population > 50000 && (name ~ 'a' || timezone ~ 'Europe')"})
    assert all(city.population > 50000 for city in large) and large
    slim = cities.get_list(1, 3, {"fields": "name,population,expand.country.name", "expand": "country", "skipTotal": 1})
    assert slim.total_items == -1 and set(slim.items[0].__dict__) >= {"name", "population"}
    assert slim.items[0].id == "" and slim.items[0].expand["country"].name
    back = countries.get_first_list_item(f"iso = '{iso}'", {"expand": "cities_via_country"})
    assert sorted(city.id for city in back.expand["cities_via_country"]) == [city.id for city in of_one]
    assert cities.get_one(of_one[0].id, {"expand": "country"}).expand["country"].iso == iso
    problem = refused(400, cities.get_list, 1, 30, {"filter": "nothing = 1"})
    assert "nothing" in problem["message"], problem
    refused(404, cities.get_one, "nothing00000000")
    return [(city.id, city.population, city.created, city.expand["country"].name) for city in page.items]


def travellers(pb, other):
    """Two records of an auth collection, and what rules show to each."""
    people = pb.collection("travellers")
    for name in ("ann", "bob"):
        body = {"email": f"{name}@example.com", "password": f"{name}-password", "passwordConfirm": f"{name}-password", "name": name}
        assert people.create(body).name == name
    refused(400, people.auth_with_password, "ann@example.com", "wrong password")
    methods = people.list_auth_methods()
    assert methods.password.enabled and methods.password.identity_fields == ["email"] and not methods.oauth2.enabled
    changes = []
    pb.auth_store.on_change(lambda token, record: changes.append((token, record and record.id)))
    ann = people.auth_with_password("ann@example.com", "ann-password").record
    assert pb.auth_store.is_valid and changes[-1] == (pb.auth_store.token, ann.id) and ann.email == "ann@example.com"
    assert people.auth_refresh().record.id == ann.id and pb.auth_store.model.id == ann.id
    bob = other.collection("travellers").auth_with_password("bob@example.com", "bob-password").record
    step("records of an auth collection sign up, log in and refresh; a wrong password is 400")

    assert [person.id for person in people.get_full_list()] == [ann.id]
    refused(404, people.get_one, bob.id)
    assert people.update(ann.id, {"avatarColour": "blue"}).avatar_colour == "blue"
    assert pb.auth_store.model.avatar_colour == "blue"
    notes = pb.collection("notes")
    secret = notes.create({"text": "mine", "traveller": ann.id})
    shown = notes.create({"text": "for all", "traveller": ann.id, "public": True})
    refused(400, notes.create, {"text": "in bob's name", "traveller": bob.id})
    theirs = other.collection("notes")
    assert [note.id for note in theirs.get_full_list()] == [shown.id]
    refused(404, theirs.get_one, secret.id)
    refused(404, theirs.update, secret.id, {"text": "changed"})
    refused(404, theirs.delete, shown.id)
    assert {note.id for note in notes.get_full_list()} == {secret.id, shown.id}
    refused(403, pb.collection("countries").create, {"iso": "ZZ", "name": "Nowhere"})
    step("rules hide and show: own notes, public ones, nobody else's")
    return secret.id


def batches(pb):
    cities = pb.collection("cities")
    country = pb.collection("countries").get_list(1, 1).items[0].id
    batch = pb.create_batch()
    batch.collection("cities").create({"id": "batchedcity0001", "name": "Batched", "country": country})
    batch.collection("cities").upsert({"id": "batchedcity0002", "name": "Upserted", "country": country})
    batch.collection("cities").update("batchedcity0001", {"population": 7})
    batch.collection("cities").delete("batchedcity0002")
    answers = batch.send()
    assert [answer["status"] for answer in answers] == [200, 200, 200, 204], answers
    assert cities.get_one("batchedcity0001").population == 7
    refused(404, cities.get_one, "batchedcity0002")
    batch = pb.create_batch()
    batch.collection("cities").update("batchedcity0001", {"population": 8})
    batch.collection("cities").create({"name": ""})
    refused(400, batch.send)
    assert cities.get_one("batchedcity0001").population == 7
    cities.delete("batchedcity0001")
    step("a batch is done whole or not at all")


def files(pb):
    country = pb.collection("countries").get_first_list_item("flag = ''")
    upload = FileUpload(("My flag.svg", FLAG, "image/svg+xml"))
    flagged = pb.collection("countries").update(country.id, {"flag": upload, "name": country.name})
    assert flagged.flag.endswith(".svg") and flagged.population == country.population, flagged.flag
    answer = httpx.get(pb.files.get_url(flagged, flagged.flag))
    assert answer.status_code == 200 and answer.content == FLAG, answer
    assert pb.files.get_token()
    problem = refused(400, pb.collection("countries").update, country.id, {"flag": FileUpload(("big.bin", b"x" * 10001))})
    assert "flag" in problem["data"], problem
    step("a file is uploaded with a record, fetched, and refused when it is too large")
    return flagged


def main():
    nodes = Nodes()
    master, replica = os.environ["MASTER"], os.environ["REPLICA"]
    admin = nodes.client(master)
    assert admin.health.check().code == 200
    admins(admin)
    collections(admin)
    rows = records(admin, Path(os.environ["DATA"]))
    guest = nodes.client(master)
    listed = reads(guest, rows)
    step("lists with filter, sort, expand and fields, pages, whole lists, first items, single records")
    ann, bob = nodes.client(master), nodes.client(master)
    secret = travellers(ann, bob)
    batches(admin)
    flagged = files(admin)

    there = nodes.client(replica)
    assert reads(there, rows) == listed
    step("the same reads give the same on the replica")
    refused(404, there.collection("notes").get_one, secret)
    there.auth_store.save(ann.auth_store.token, ann.auth_store.model)
    assert there.collection("notes").get_one(secret).text == "mine"
    assert len(there.collection("notes").get_full_list()) == 2
    step("the token from the master opens the same on the replica")
    token = there.collection("travellers").auth_refresh().token
    ann.auth_store.save(token, ann.auth_store.model)
    assert ann.collection("notes").get_one(secret).text == "mine"
    assert there.collection("travellers").auth_with_password("bob@example.com", "bob-password").record.name == "bob"
    refused(404, there.collection("notes").get_one, secret)
    step("logins and refreshed tokens of the replica are valid on the master")
    answer = refused(403, there.collection("notes").create, {"text": "on the replica"})
    assert answer == {"error": "replica is read-only", "code": 403}, answer
    step("a write on the replica is refused")
    url, deadline = there.files.get_url(flagged, flagged.flag), time.monotonic() + 60
    while (answer := httpx.get(url, headers={"X-Vski-Min-Position": nodes.position})).status_code == 503:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    assert answer.status_code == 200 and answer.content == FLAG, answer
    step("the uploaded file is on the replica, too")


main()
