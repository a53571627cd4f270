#!/usr/bin/env python3
"""Holds documents against a JSON Schema. Usage: check_schema.py SCHEMA DOCUMENT… [--refused DOCUMENT…]

Documents may have comments and commas before a closing bracket. Exit code 0: the schema takes the first ones, and refuses the rest.
"""

import json
import re
import sys

import jsonschema

# A string, or what is to go: a comment, a comma that closes.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[\]}])', re.DOTALL)


def read(path):
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    return json.loads(TOKEN.sub(lambda found: found[0] if found[0][0] == '"' else " ", text), strict=False)


def main(schema_path, *paths):
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    wanted, wrong = True, 0
    for path in paths:
        if path == "--refused":
            wanted = False
            continue
        errors = list(validator.iter_errors(read(path)))
        if wanted == (not errors):
            continue
        wrong += 1
        print(f"{path}: {'refused' if errors else 'taken'}")
        for error in errors:
            best = jsonschema.exceptions.best_match([error])
            print(f"  {'.'.join(map(str, best.absolute_path))}: {best.message:.300}")
    sys.exit(1 if wrong else 0)


main(*sys.argv[1:])
