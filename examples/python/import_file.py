"""Imports a file of users, products or campaigns, of any size: streams it, and tells how far it is.

    API=... TOKEN=... python3 import_file.py users customers.csv
    API=... TOKEN=... python3 import_file.py products catalogue.ndjson

TOKEN is an operator's. Rows are stored by the thousand as they come, so an import that broke off is simply run again:
rows with an id (users also with an email) are found again. Exits with 0 if every row was good, 1 if some were faulty,
2 if the file was not taken to its end.
"""

import http.client
import json
import os
import select
import ssl
import sys
import time
from urllib.parse import urlsplit

TYPES = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}
BLOCK = 64 * 1024
PATIENCE = 600


def main():
    try:
        api, token = urlsplit(os.environ["API"]), os.environ["TOKEN"]
        what, path = sys.argv[1:]
        content_type = TYPES[os.path.splitext(path)[1].lower()]
    except (KeyError, ValueError):
        sys.exit(__doc__)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
    until = time.monotonic() + PATIENCE
    while True:
        try:
            status, after, answer = send(api, f"/api/admin/imports/{what}", headers, path)
        except (OSError, http.client.HTTPException) as error:
            print(f"broke off ({error!r}); what was stored by then stays: run it again", file=sys.stderr)
            sys.exit(2)
        if status in (429, 503) and after and time.monotonic() < until:
            # The API takes few imports at a time. From the beginning: what is stored is found again.
            print(f"busy, trying again in {after} s", file=sys.stderr)
            time.sleep(int(after))
            continue
        break
    if status != 200:
        print(f"{answer.get('code', status)}: {answer.get('detail') or answer.get('title')}", file=sys.stderr)
        for error in answer.get("errors", []):
            print(f"  {error['field']}: {error['detail']}", file=sys.stderr)
        sys.exit(2)
    print(", ".join(f"{answer[name]:,} {name}" for name in ("created", "updated", "unchanged", "faulty")))
    for error in answer["errors"]:
        print(f"line {error['line']}: {'; '.join(error['reasons'])}")
    untold = answer["faulty"] - len(answer["errors"])
    if untold:
        print(f"and {untold:,} more faulty lines")
    sys.exit(1 if answer["faulty"] else 0)


def send(api, target, headers, path):
    """Sends the file; the answer's status, its Retry-After and what it says."""
    kind = http.client.HTTPSConnection if api.scheme == "https" else http.client.HTTPConnection
    # The last rows are stored before the answer comes.
    connection = kind(api.netloc, timeout=300)
    try:
        connection.putrequest("POST", api.path.rstrip("/") + target)
        for name, value in {**headers, "Content-Length": os.path.getsize(path)}.items():
            connection.putheader(name, str(value))
        connection.endheaders()
        with open(path, "rb") as file:
            try:
                send_blocks(connection, file, os.path.getsize(path))
            except (BrokenPipeError, ConnectionResetError):
                pass  # There may be an answer that says why.
        answer = connection.getresponse()
        return answer.status, answer.getheader("Retry-After"), json.loads(answer.read())
    except json.JSONDecodeError as error:
        raise http.client.HTTPException("the answer is no JSON") from error
    finally:
        connection.close()


def send_blocks(connection, file, size):
    began = told = time.monotonic()
    sent = rows = 0
    while block := file.read(BLOCK):
        if is_answered(connection.sock):
            return
        connection.send(block)
        sent += len(block)
        rows += block.count(b"\n")
        now = time.monotonic()
        if now - told >= 1 or sent == size:
            told = now
            rate = rows / max(now - began, 0.001)
            end = "\r" if sys.stderr.isatty() and sent < size else "\n"
            print(f"{100 * sent // size:3} %  {rows:,} rows  {rate:,.0f} rows/s  ", end=end, file=sys.stderr)


def is_answered(sock):
    """Whether the server has said something already: then it does not want the rest."""
    # Under TLS there is more to read than answers.
    return not isinstance(sock, ssl.SSLSocket) and bool(select.select([sock], [], [], 0)[0])


if __name__ == "__main__":
    main()
