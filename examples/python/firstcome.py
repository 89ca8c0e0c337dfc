"""A client of Firstcome, of the standard library alone: asks once, and stays until it is known how that ended.

    API=... TOKEN=... python3 firstcome.py coupon 1
    API=... TOKEN=... python3 firstcome.py order 3x2 5x1

KEY is the key of the intention, where it is to survive this process. Exits with 0 if it succeeded.
"""

import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
import uuid


class Refused(Exception):
    """The answer that repeating would not change."""

    def __init__(self, status, problem):
        super().__init__(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        self.status = status
        self.code = problem.get("code", "unknown")


class Client:
    def __init__(self, api, token, patience=600):
        self.api, self.token = api, token
        self.until = time.monotonic() + patience

    def take(self, path, body=None, key=None, on_place=lambda job: None):
        """Submits a job and waits for its outcome: succeeded, rejected or failed."""
        # One key per intention, for all attempts: they are one job, whatever got lost on the way.
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        job, after = self._insist("POST", path, headers, data, self._read_json)
        on_place(job)
        if after is not None:
            self._pause(after)
        return self._settled(job["jobId"], on_place)

    def _settled(self, job_id, on_place):
        # Server-sent events where the API has them, else polls that are held until something happens.
        headers = {"Accept": "text/event-stream, application/json;q=0.5", "Prefer": "wait=5"}

        def read(answer):
            if not answer.headers.get_content_type() == "text/event-stream":
                return self._read_json(answer)
            for event, data in events(answer):
                job = json.loads(data)
                if event == "settled":
                    return job, None
                on_place(job)
            return {"status": "queued"}, None

        while True:
            job, after = self._insist("GET", f"/api/jobs/{job_id}", headers, None, read)
            if job["status"] != "queued":
                return job
            on_place(job)
            self._pause(1 if after is None else after)

    def _insist(self, method, path, headers, data, read):
        """Asks until there is an answer that counts: a success, or one that repeating would not change."""
        headers = {**headers, "Authorization": f"Bearer {self.token}"}
        faults = 0
        while True:
            request = urllib.request.Request(self.api + path, data, headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return read(answer)
            except urllib.error.HTTPError as error:
                after = retry_after(error)
                passes = error.code in (408, 429) or error.code >= 500
                if not passes and not (error.code == 409 and after is not None):
                    raise Refused(error.code, self._problem(error)) from None
                if error.code == 503:  # There may be too many streams: then it polls.
                    headers.pop("Accept", None)
            except (OSError, http.client.HTTPException, ValueError):
                # No answer, or half of one: nobody knows whether it was heard. The key makes it safe to repeat.
                after = None
                if time.monotonic() >= self.until:
                    raise
            self._pause(after, faults)
            faults += 1

    def _pause(self, after, faults=0):
        """What the server asks for, else longer each time; and a bit more, so that not all come back at once."""
        seconds = min(0.5 * 2**faults, 15) if after is None else after
        seconds += random.random() * (seconds / 2 if after is None else 0.25)
        if time.monotonic() + seconds > self.until:
            raise TimeoutError("gave up: it took too long")
        time.sleep(seconds)

    @staticmethod
    def _read_json(answer):
        return json.loads(answer.read()), retry_after(answer)

    @staticmethod
    def _problem(answer):
        try:
            return json.loads(answer.read())
        except (OSError, ValueError):
            return {}


def retry_after(answer):
    seconds = answer.headers.get("Retry-After", "")
    return int(seconds) if seconds.isdigit() else None


def events(lines):
    """The events of a stream, as the HTML standard says that they are read."""
    event, data = "message", []
    for line in lines:
        field, _, content = line.decode().rstrip("\r\n").partition(":")
        content = content.removeprefix(" ")
        if field == "event":
            event = content
        elif field == "data":
            data.append(content)
        elif not line.strip():
            if data:
                yield event, "\n".join(data)
            event, data = "message", []


def main():
    try:
        api, token = os.environ["API"], os.environ["TOKEN"]
        what, *rest = sys.argv[1:]
        if what == "coupon":
            path, body = f"/api/coupons/{int(rest[0])}/issue", None
        elif what == "order" and rest:
            items = [(item + "x1").split("x")[:2] for item in rest]
            items = [{"productId": int(product), "quantity": int(n)} for product, n in items]
            path, body = "/api/orders", {"items": items}
        else:
            raise ValueError(what)
    except (KeyError, IndexError, ValueError):
        sys.exit(__doc__)

    def on_place(job):
        if job.get("position"):
            print(f"place {job['position']}, about {job.get('estimatedSeconds') or '?'} s", file=sys.stderr)

    try:
        job = Client(api, token).take(path, body, os.environ.get("KEY"), on_place)
    except Refused as refused:
        sys.exit(f"{refused.code}: {refused}")
    print(json.dumps(job))
    sys.exit(job["status"] != "succeeded")


if __name__ == "__main__":
    main()
