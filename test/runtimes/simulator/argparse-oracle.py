"""CPython's argparse over a flag table of the simulator: the judge of flags/argparse.ts.

stdin: {"flags": [...], "positionals": 0 or 1, "lines": [[...], ...]}; stdout: per line null when
it parses, else argparse's message.
"""

import argparse
import json
import re
import sys


class Refused(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused(message)


def human_readable_int(text):
    """vllm/engine/arg_utils.py: 25.6k is 25600, 1K is 1024, 1.5K is refused."""
    text = text.strip()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", text)
    if found is None:
        return int(text)
    if found[2].isupper() and "." in found[1]:
        raise argparse.ArgumentTypeError("Decimals are not allowed with binary suffixes")
    return float(found[1])


def size_or_auto(text):
    return -1 if text.strip().lower() in ("auto", "-1") else human_readable_int(text)


size_or_auto.__name__ = "human_readable_int"


def loads(text):
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted") from error


TYPES = {
    "int": int,
    "float": float,
    "json": loads,
    "size": human_readable_int,
    "size-or-auto": size_or_auto,
}


def add(parser, flag):
    kind, names = flag["kind"], flag["names"]
    if kind == "flag":
        parser.add_argument(*names, action="store_true")
    elif kind == "switch":
        parser.add_argument(*names, action=argparse.BooleanOptionalAction)
    else:
        more = {"type": TYPES.get(kind, str)}
        if flag["choices"]:
            make = int if kind == "int" else str
            more["choices"] = [make(choice) for choice in flag["choices"]]
        if kind == "append":
            more["action"] = "append"
        elif kind == "maybe":
            more["nargs"] = "?"
        elif flag["many"]:
            more["nargs"] = flag["many"]
        parser.add_argument(*names, **more)


def main():
    asked = json.load(sys.stdin)
    parser = Parser(prog="x", add_help=False)
    for flag in asked["flags"]:
        add(parser, flag)
    if asked["positionals"]:
        parser.add_argument("model_tag", nargs="?")
    answers = []
    for line in asked["lines"]:
        try:
            parser.parse_args(line)
            answers.append(None)
        except Refused as refused:
            answers.append(str(refused))
    json.dump(answers, sys.stdout)


main()
