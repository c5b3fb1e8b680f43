#!/usr/bin/env python3
"""Parts of load.sh that are no work for a shell.

    load.py accounts URL PASSWORD FIRST LAST    logs user<N>@example.org in; prints `token ns seq` of each
    load.py wake API NOTIFY ACCOUNT COUNT       holds a poll at NOTIFY and commits at API, COUNT times, a second
                                                apart; prints the ms from the answer of the one to that of the other
    load.py gauge NAME URL...                   the sum of a metric of some servers
    load.py await NAME LEAST SECS URL...        waits until that is LEAST or more; prints what it is in the end
"""

import http.client
import json
import sys
import threading
import time

WIRE = {"x-drivefs-wire": "1"}


def ask(server, method, path, body=None, token=None, timeout=100):
    """The status and the JSON or text of one request."""
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=timeout)
    headers = dict(WIRE, **({"authorization": f"Bearer {token}"} if token else {}))
    connection.request(method, path, body if isinstance(body, (bytes, type(None))) else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"{path}: {answer.status} {text[:200]}")
    return json.loads(text) if text[:1] == b"{" else text.decode()


def accounts(url, password, first, last):
    for number in range(int(first), int(last) + 1):
        login = {"email": f"user{number}@example.org", "password": password, "device": "load"}
        login = ask(url, "POST", "/auth/v1/login", login)
        token, ns = login["token"], login["account"]["root"]
        print(token, json.dumps(ns), head(url, token, ns), flush=True)


def head(url, token, ns):
    """Where a namespace stands."""
    return ask(url, "POST", "/sync/v1/changes", {"ns": ns, "cursor": 0, "limit": 1}, token)["head"]


def wake(api, notify, account, count):
    token, ns = account.split()[:2]
    ns = json.loads(ns)
    for number in range(int(count)):
        cursors = [{"ns": ns, "seq": head(api, token, ns)}]
        answered = []

        def hold():
            changed = ask(notify, "POST", "/sync/v1/poll", {"cursors": cursors, "timeout_secs": 90}, token)["changed"]
            answered.append((time.monotonic(), changed))

        holding = threading.Thread(target=hold)
        holding.start()
        # Not in step with anything that the server does every so often.
        time.sleep(1 + number * 0.037 % 0.5)
        if answered:
            sys.exit("the poll was not held")
        ask(api, "POST", f"/files/upload?uploadType=media&path=/wake-{number}", b"x" * 100, token)
        committed = time.monotonic()
        holding.join()
        when, changed = answered[0]
        if changed != [ns]:
            sys.exit(f"the poll was answered without a change: {changed}")
        print(f"{max(0.0, when - committed) * 1e3:.1f}", flush=True)


def total(name, urls):
    lines = (line for url in urls for line in ask(url, "GET", "/metrics").splitlines())
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def gauge(name, *urls):
    print(f"{total(name, urls):.0f}")


def wait(name, least, secs, *urls):
    until = time.monotonic() + float(secs)
    found = 0
    while time.monotonic() < until:
        try:
            found = total(name, urls)
        except (OSError, http.client.HTTPException):
            # It is being started, or has no time.
            found = 0
        if found >= float(least):
            break
        time.sleep(0.1)
    print(f"{found:.0f}")


{"accounts": accounts, "wake": wake, "gauge": gauge, "await": wait}[sys.argv[1]](*sys.argv[2:])
