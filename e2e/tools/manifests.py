"""What e2e asks about Kubernetes manifests, on standard output as JSON.

    manifests.py load < YAML             the objects of a stream; a key that stands twice is an error
    manifests.py check VERSION < JSON    [[object, ...], ...] -> [[what is wrong, ...], ...], by the strict schemas of VERSION

An unknown kind is as wrong as an unknown field, and all faults of an object are told, not the first. Kinds that are
no part of Kubernetes are in custom-kinds.json, with the fields that we use.
"""

import json
import pathlib
import re
import sys

import jsonschema
import kubernetes_validate
import referencing
import yaml

SCHEMAS = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
CUSTOM = json.loads(pathlib.Path(__file__).with_name("custom-kinds.json").read_text())


class Unique(yaml.SafeLoader):
    """Refuses a mapping that has a key twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


class Checker:
    """The schemas of one Kubernetes version."""

    def __init__(self, version):
        found = sorted(SCHEMAS.glob(f"v{version}.*-local-strict"))
        if not found:
            sys.exit(f"no schemas of Kubernetes {version}")
        self.folder = found[-1]
        definitions = json.loads((self.folder / "_definitions.json").read_text())
        self.registry = referencing.Resource.from_contents(definitions) @ referencing.Registry()
        self.validators = {}

    def validator(self, version, kind):
        """Of a kind, or None for one that nobody knows."""
        if (version, kind) not in self.validators:
            # networking.k8s.io/v1 NetworkPolicy is networkpolicy-networking-v1.json, v1 Service service-v1.json.
            group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", version)
            file = self.folder / f"{kind.lower()}-{group}.json"
            schema = CUSTOM.get(f"{version} {kind}") or (json.loads(file.read_text()) if file.is_file() else None)
            made = schema and jsonschema.Draft202012Validator(schema, registry=self.registry)
            self.validators[version, kind] = made
        return self.validators[version, kind]

    def faults(self, thing):
        version, kind = str(thing.get("apiVersion")), str(thing.get("kind"))
        name = f"{kind} {(thing.get('metadata') or {}).get('name')}"
        validator = self.validator(version, kind)
        if validator is None:
            return [f"{name}: no kind {kind} in {version}"]
        return [f"{name}: {fault.json_path}: {fault.message[:300]}" for fault in validator.iter_errors(thing)]


def main():
    what = sys.argv[1]
    if what == "load":
        answer = [thing for thing in yaml.load_all(sys.stdin, Unique) if thing is not None]
    elif what == "check":
        checker = Checker(sys.argv[2])
        answer = [[fault for thing in case for fault in checker.faults(thing)] for case in json.load(sys.stdin)]
    else:
        sys.exit(__doc__)
    json.dump(answer, sys.stdout)


main()
