"""Hooks of schemathesis for schema.sh: what would hold a run up for long is asked for shortly."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    # A poll without cursors is held for as long as it says.
    if case.path.endswith("/poll") and isinstance(body.get("timeout_secs"), int):
        body["timeout_secs"] = min(body["timeout_secs"], 1)
    # One with a cursor that an answer gave is held for so long, too.
    if case.path.endswith("/longpoll") and isinstance(body.get("timeout"), int):
        body["timeout"] = min(body["timeout"], 30)
