"""Print every flag of `vllm serve` as JSON, one a line: names, whether it takes a value, choices.

Read from the parser itself, not from the help text, which hides aliases and types.
"""

import argparse
import json

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    parser = FlexibleArgumentParser()
    serve = ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    rows = []
    for action in serve._actions:
        if not action.option_strings:
            continue
        row = {"names": action.option_strings, "values": values_of(action)}
        if action.choices:
            row["choices"] = [str(choice) for choice in action.choices]
        rows.append(row)
    rows.sort(key=lambda row: row["names"][0])
    print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")


def values_of(action: argparse.Action) -> str:
    """`none`, `one`, `optional` or `many`."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return "none"
    return {None: "one", "?": "optional", "*": "many", "+": "many"}.get(action.nargs, "many")


main()
