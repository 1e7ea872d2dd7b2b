#!/usr/bin/env python3
"""Checks rendered manifests against strict schemas of every supported Kubernetes.

In: rendered/*.yaml and shuttle.yaml, or the files given. Out: a line for every fault, a summary, exit code 1 if there was one. An object of an
unknown kind is a fault, and so is a warning. Kinds that are not Kubernetes' own are checked against schemas/.
"""

import copy
import glob
import json
import os
import re
import sys
import time

import importlib_resources
import jsonschema
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

HERE = os.path.dirname(os.path.abspath(__file__))
VERSIONS = ["1.34", "1.35", "1.36", "1.37"]
META = {"type": "object", "required": ["name"], "additionalProperties": False, "properties": {
    "name": {"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
    "namespace": {"type": "string"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
}}


class Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, as the API server does in strict mode."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(map(str, twice))}", node.start_mark)
        return super().construct_mapping(node, deep)


def closed(schema):
    """The schema with every object that has properties closed to others."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema


def custom():
    """By apiVersion and kind: the validator of a kind in schemas/, and what it nests."""
    found = {}
    for path in sorted(glob.glob(f"{HERE}/schemas/*.yaml")):
        with open(path) as file:
            one = yaml.load(file, Loader)
        schema = {"type": "object", "required": ["metadata"], "additionalProperties": False, "properties": {
            "apiVersion": {"const": one["apiVersion"]}, "kind": {"const": one["kind"]},
            "metadata": META, "spec": closed(one["spec"])}}
        found[one["apiVersion"], one["kind"]] = (jsonschema.Draft202012Validator(schema), one.get("nested"))
    return found


class Release:
    """The strict schemas of one version of Kubernetes, each compiled once: that is what makes this quick."""

    def __init__(self, version):
        package = importlib_resources.files("kubernetes_validate")
        wanted = [folder.name for folder in package.joinpath("kubernetes-json-schema").iterdir()
                  if re.fullmatch(rf"v{re.escape(version)}(\.\d+)?-local-strict", folder.name)]
        if len(wanted) != 1:
            raise SystemExit(f"kubernetes-validate has no strict schemas of {version}: {wanted}")
        self.version, self.folder, self.known = version, package.joinpath("kubernetes-json-schema", wanted[0]), {}
        definitions = json.loads(self.folder.joinpath("_definitions.json").read_text())
        self.registry = Registry().with_resource("_definitions.json", Resource(contents=definitions, specification=DRAFT202012)).crawl()

    def validator(self, api, kind):
        """Of one kind, or None."""
        if (api, kind) not in self.known:
            group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
            path = self.folder.joinpath(f"{kind.lower()}-{group}.json")
            schema = json.loads(path.read_text()) if path.is_file() else None
            self.known[api, kind] = schema and jsonschema.Draft202012Validator(schema, registry=self.registry)
        return self.known[api, kind]


def faults(thing, releases, kinds):
    """What is wrong with an object, as text."""
    api, kind = thing.get("apiVersion"), thing.get("kind")
    if (api, kind) in kinds:
        validator, nested = kinds[api, kind]
        yield from (text(error) for error in validator.iter_errors(thing))
        if nested and isinstance(thing["spec"], dict):
            items, key, inner_api, inner_kind = nested
            for item in thing["spec"][items]:
                inner = {"apiVersion": inner_api, "kind": inner_kind, **item[key]}
                yield from (f"{items}.{item['name']}: {fault}" for fault in faults(inner, releases, kinds))
        return
    for release in releases:
        validator = release.validator(api, kind)
        if validator is None:
            yield f"{release.version}: no schema for {api} {kind}"
        else:
            yield from (f"{release.version}: {text(error)}" for error in validator.iter_errors(thing))


def text(error):
    return f"{'.'.join(map(str, error.absolute_path)) or '(top)'}: {error.message[:200]}"


def planted(thing, releases, kinds):
    """Slips that must be found, or a pass would mean nothing: a misspelt key, a wrong type, a kind that nobody knows."""
    misspelt, wrong, unknown = (copy.deepcopy(thing) for _ in range(3))
    misspelt["spec"]["replicsa"] = 1
    wrong["spec"] = "many"
    unknown["kind"] += "s"
    return [slip for slip in (misspelt, wrong, unknown) if not list(faults(slip, releases, kinds))]


def main(paths):
    begun, releases, kinds = time.monotonic(), [Release(version) for version in VERSIONS], custom()
    count, bad, proved = 0, 0, set()
    for path in paths or [*sorted(glob.glob(f"{HERE}/rendered/*.yaml")), f"{HERE}/shuttle.yaml"]:
        with open(path) as file:
            things = [thing for thing in yaml.load_all(file, Loader) if thing]
        if not things:
            things = [{"kind": "nothing", "metadata": {"name": "in this file"}}]
        count += len(things)
        for thing in things:
            if isinstance(thing.get("spec"), dict) and (thing["apiVersion"], thing["kind"]) not in proved:
                proved.add((thing["apiVersion"], thing["kind"]))
                for slip in planted(thing, releases, kinds):
                    bad += 1
                    print(f"{os.path.basename(path)}: a planted slip in {thing['kind']} was not found: {slip}")
            for fault in faults(thing, releases, kinds):
                bad += 1
                print(f"{os.path.basename(path)}: {thing['kind']} {thing['metadata']['name']}: {fault}")
    print(f"{count} objects against Kubernetes {', '.join(VERSIONS)}: {bad} faults, {time.monotonic() - begun:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
