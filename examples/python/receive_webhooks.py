"""A data platform that believes only what is signed: POST /events, as firstcome-worker send-to-data-platform posts it.

    DATA_PLATFORM_SIGNING_SECRET=whsec_... DATA_PLATFORM_TOKEN=... python3 receive_webhooks.py 9090

Signatures are those of Standard Webhooks (https://www.standardwebhooks.com).
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE = 300  # seconds


def is_signed(secrets, headers, body, now):
    """Whether one of the signatures is that of one of the secrets (two, while they are rotated)."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE:
        return False
    given = [one[3:] for one in headers.get("webhook-signature", "").split(" ") if one.startswith("v1,")]
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{message_id}.{timestamp}.".encode() + body
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        if any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
            return True
    return False


class Receiver(BaseHTTPRequestHandler):
    secrets = os.environ.get("DATA_PLATFORM_SIGNING_SECRET", "").split()
    token = os.environ.get("DATA_PLATFORM_TOKEN", "")
    seen = set()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        expected = f"Bearer {self.token}".encode()
        has_token = hmac.compare_digest(self.headers.get("authorization", "").encode(), expected)
        if not (has_token and is_signed(self.secrets, self.headers, body, time.time())):
            self.answer(401)
            return
        for event in json.loads(body):
            # At least once, with the same id each time.
            if event["id"] not in self.seen:
                self.seen.add(event["id"])
                print(event["type"], event["subject"], flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_request(self, code="-", size="-"):
        if code != 204:
            super().log_request(code, size)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Receiver.secrets or not Receiver.token:
        sys.exit(__doc__)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
