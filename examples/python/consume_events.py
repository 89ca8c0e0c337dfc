"""Follows what happens in the shop from a queue of its own, and keeps a sum of what was issued and sold.

    pip install -r requirements.txt
    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f python3 consume_events.py shop-figures.db

Every message is lines of JSON, 1 to 128 of them; an event can come twice, and in any order (docs/events.md).
UNTIL=N ends it when N different events were counted.
"""

import json
import os
import sqlite3
import sys

import pika

EXCHANGE = os.environ.get("QUEUE_NAMESPACE", "firstcome") + ".events"
# Both are ours: their names, their lengths, what becomes of them.
QUEUE = os.environ.get("QUEUE", "shop-figures")
DEAD = QUEUE + ".dead"
TYPES = ["order.completed", "order.cancelled", "coupon.issued"]


def open_store(path):
    store = sqlite3.connect(path)
    store.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY, type TEXT NOT NULL)")
    store.execute("CREATE TABLE IF NOT EXISTS figures (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
    return store


def lines(body):
    """The events of a message. A line feed at its end is allowed, and is no event."""
    return [json.loads(line) for line in body.split(b"\n") if line.strip()]


def count(store, event):
    """The effect; once per event, whatever comes twice."""
    is_new = store.execute(
        "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO NOTHING", (event["id"], event["type"])
    ).rowcount
    if not is_new:
        return
    data = event["data"]
    figures = {
        "order.completed": lambda: {"orders": 1, "won": data["paid"]},
        "order.cancelled": lambda: {"orders": -1, "won": -data["refunded"]},
        "coupon.issued": lambda: {"coupons": 1},
    }
    # New types come: those that we do not know are not for us.
    for name, value in figures.get(event["type"], dict)().items():
        store.execute(
            "INSERT INTO figures VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (name, value),
        )


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    store = open_store(sys.argv[1])
    until = int(os.environ.get("UNTIL", "0"))
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(DEAD, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD,
            # Dropping the oldest, never refusing: what a queue refuses it does not get later.
            "x-max-length": 1_000_000,
            "x-overflow": "drop-head",
        },
    )
    for event_type in TYPES:
        channel.queue_bind(QUEUE, EXCHANGE, event_type)

    def on_message(channel, method, _properties, body):
        try:
            with store:  # One transaction: the effects and the ids.
                for event in lines(body):
                    count(store, event)
        except (ValueError, KeyError, TypeError) as error:
            # It will not get better. It is kept for somebody to look at; the others go on.
            print(f"dead letter: {error!r}", file=sys.stderr)
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            # After the effect: whoever dies before this gets it again.
            channel.basic_ack(method.delivery_tag)
        if until and store.execute("SELECT count(*) FROM seen").fetchone()[0] >= until:
            channel.stop_consuming()

    channel.basic_qos(prefetch_count=50)
    channel.basic_consume(QUEUE, on_message)
    print("listening", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        channel.stop_consuming()
    connection.close()
    print(json.dumps(dict(store.execute("SELECT name, value FROM figures ORDER BY name"))))


if __name__ == "__main__":
    main()
