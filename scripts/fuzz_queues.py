"""Publishes malformed messages straight to queues: fuzz_queues.py COUNT SEED QUEUE... (AMQP_URL names the broker).

It prints how many messages and how many records: a record is a line that is not empty, none of these can be processed, and
one that comes again in the same place of the same message (without an id: of the same content) is the same. The first five
bodies are those of every queue; the others follow from the seed.
"""

import json
import os
import random
import sys
import uuid

import pika

MEGABYTE = 1_000_000
JOB = {"id": None, "userId": 7, "kind": "issue-coupon", "job": {"couponId": 1}}
EVENT = {
    "specversion": "1.0", "id": None, "source": "/firstcome/orders", "type": "order.completed",
    "time": "2026-03-01T12:00:00Z", "subject": "1", "datacontenttype": "application/json", "data": {"orderId": "1"},
}  # fmt: skip
WRONG = [None, True, -1, 2**63, 1e308, "", "x", "\0", "7", [], {}, [[[]]], {"a": {"b": None}}]


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def mistaken(rng):
    """A job or an event that is none: a field of the wrong type, one too few, of another version, cut off."""
    record = dict(rng.choice([JOB, EVENT]), id=str(uuid.UUID(int=rng.getrandbits(128))))
    field = rng.choice([name for name in record if name not in ("specversion", "source", "subject", "datacontenttype", "time")])
    match rng.randrange(4):
        case 0:
            # An id or a user that is a number may be a good one.
            record[field] = rng.choice([value for value in WRONG if field != "userId" or type(value) is not int])
        case 1:
            del record[field]
        case 2:
            record["kind" if "kind" in record else "type"] = rng.choice(["issue-coupon/2", "order.completed.v2", "ISSUE-COUPON"])
        case 3:
            return compact(record)[: rng.randrange(1, len(compact(record)) - 1)]
    if record.get("kind") == "issue-coupon":
        record["job"] = rng.choice(WRONG)
    return compact(record)


def body(number, rng):
    match number:
        case 0:
            return b""
        case 1:
            return b"\n\n\n"
        case 2:
            return b"x" * MEGABYTE
        case 3:
            return compact(dict(JOB, job={"couponId": "1" * MEGABYTE}))
        case 4:
            return b"[" * 100_000
    match rng.randrange(5):
        case 0:
            return rng.randbytes(rng.randrange(1, 300))
        case 1:
            return compact(rng.choice(WRONG))
        case 2:
            return b"\n".join(mistaken(rng) for _ in range(rng.randrange(2, 6)))
        case _:
            return mistaken(rng)


def main():
    count, seed = int(sys.argv[1]), sys.argv[2]
    messages, records = 0, set()
    with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
        channel = connection.channel()
        # What reaches no queue, or is refused, raises.
        channel.confirm_delivery()
        for queue in sys.argv[3:]:
            rng = random.Random(f"{seed} {queue}")
            for number in range(count):
                message = body(number, rng)
                name = str(uuid.UUID(int=rng.getrandbits(128)))
                if number >= 5 and rng.randrange(3) == 0:
                    name = None
                # Persistent as ours are; now and then with properties that ours do not have.
                properties = pika.BasicProperties(
                    delivery_mode=2,
                    content_type=rng.choice([None, "text/plain", "application/json"]),
                    type=rng.choice([None, "", "jobs", "letters", "x" * 255]),
                    message_id=name,
                    headers=rng.choice([None, {}, {"x-attempts": -1}, {"x-attempts": "many"}, {"x-delivery-count": True}]),
                )
                channel.basic_publish("", queue, message, properties, mandatory=True)
                messages += 1
                lines = [line for line in message.split(b"\n") if line]
                records.update((name or message, number, line) for number, line in enumerate(lines))
    print(messages, len(records))


if __name__ == "__main__":
    main()
