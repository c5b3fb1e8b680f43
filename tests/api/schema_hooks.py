"""Hooks of schemathesis for schema.sh.

What is made up names nothing that is there, so half of the names are replaced by those that are: SCHEMA_KNOWN has
them, as JSON from fields to lists of values. And what would hold a run up for long is asked for shortly.
"""

import json
import os
import random

import schemathesis

KNOWN = json.loads(os.environ["SCHEMA_KNOWN"])
# What is taken away or put elsewhere by these is not what others ask for.
TAKES = ("/delete_v2", "/move_v2", "/trash/empty")
CHANCE = random.Random(int(os.environ["SCHEMA_SEED"]))


def known(fields):
    """Replaces values by known ones of the same kind, also further down."""
    for name, value in list(fields.items()):
        if isinstance(value, dict):
            known(value)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    known(part)
        elif name in KNOWN and CHANCE.random() < 0.5:
            fitting = [k for k in KNOWN[name] if type(k) is type(value)]
            if fitting:
                fields[name] = CHANCE.choice(fitting)


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.query, dict):
        known(case.query)
    body = case.body
    if not isinstance(body, dict):
        return
    if not case.path.endswith(TAKES):
        known(body)
    # A poll without cursors is held for as long as it says.
    if case.path.endswith("/poll") and isinstance(body.get("timeout_secs"), int):
        body["timeout_secs"] = min(body["timeout_secs"], 1)
    # One with a cursor that an answer gave is held for so long, too.
    if case.path.endswith("/longpoll") and isinstance(body.get("timeout"), int):
        body["timeout"] = min(body["timeout"], 30)
