"""What schemathesis is told by scripts/fuzz beyond the API's description: bodies of imports and orders, headers that it does not
tell of, bounds; and what is counted: FUZZ_COUNTS is a file that gets the answers by operation and status."""

import atexit
import collections
import csv
import io
import json
import os
import random
import threading

import schemathesis
from hypothesis import strategies as st

TABLES = {
    "users": ["id", "name", "email", "balance", "subject"],
    "products": ["id", "name", "price", "stock", "onSaleFrom", "onSaleUntil", "perCustomer"],
    "coupons": ["id", "name", "discountType", "discountValue", "maxDiscount", "total", "startsAt", "endsAt", "validUntil"],
}
REQUIRED = {
    "users": ["name", "email"],
    "products": ["name", "price", "stock"],
    "coupons": ["name", "discountType", "discountValue", "total", "startsAt", "endsAt"],
}
TIMES = st.sampled_from(
    ["2026-01-01T00:00:00Z", "2099-01-01T00:00:00+09:00", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59Z", "soon", ""]
)
NUMBERS = st.one_of(
    st.integers(0, 1_000),
    st.sampled_from([-1, 1_000_000_000, 1_000_000_001, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 10**40]),
)
VALUES = {
    "id": st.one_of(st.integers(1, 30), st.integers(900_000, 1_000_000), NUMBERS),
    "name": st.one_of(st.just("Box"), st.text(max_size=220)),
    "email": st.one_of(st.emails(), st.integers(1, 50).map("user{}@example.com".format), st.text(max_size=20)),
    "subject": st.one_of(st.text(max_size=30), st.just("7"), st.just("")),
    "discountType": st.sampled_from(["fixed", "percent", "PERCENT", ""]),
} | {column: TIMES for column in ["onSaleFrom", "onSaleUntil", "startsAt", "endsAt", "validUntil"]}


@st.composite
def rows(draw, table):
    """The columns, most often those of the table, and rows of values for them."""
    others = [column for column in TABLES[table] if column not in REQUIRED[table]]
    columns = REQUIRED[table] + draw(st.lists(st.sampled_from(others), unique=True))
    if draw(st.integers(0, 9)) == 0:
        columns.append(draw(st.one_of(st.text(max_size=8), st.sampled_from(columns))))
    row = st.tuples(*(VALUES.get(column, NUMBERS) for column in columns))
    return draw(st.permutations(columns)), [dict(zip(columns, row)) for row in draw(st.lists(row, max_size=8))]


def as_csv(columns, found):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in found)
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_ndjson(_, found):
    return "\n".join(json.dumps(row) for row in found).encode()


@st.composite
def bodies(draw, table, media_type):
    """A whole body, most often well-formed."""
    body = (as_csv if media_type == "text/csv" else as_ndjson)(*draw(rows(table)))
    match draw(st.integers(0, 9)):
        case 0:
            return body[: draw(st.integers(0, len(body)))]
        case 1:
            at = draw(st.integers(0, len(body)))
            return body[:at] + draw(st.binary(max_size=40)) + body[at:]
        case 2:
            return draw(st.binary(max_size=200))
    return body


for name in ["text/csv", "application/x-ndjson"]:
    schemathesis.openapi.media_type(name, st.binary(max_size=200))


@schemathesis.hook("flatmap_case").apply_to(path_regex="^/api/admin/imports/")
def with_rows(context, case):
    def sent(body):
        case.body = body
        return case

    return bodies(context.operation.path.rsplit("/", 1)[1], case.media_type).map(sent)


ORDERS = st.one_of(
    st.fixed_dictionaries(
        {
            "items": st.lists(
                st.fixed_dictionaries({"productId": st.integers(1, 60), "quantity": st.integers(1, 3)}),
                min_size=1,
                max_size=3,
                unique_by=lambda item: item["productId"],
            )
        },
        optional={"couponId": st.integers(1, 60), "fulfilment": st.sampled_from(["all", "partial"])},
    ),
    st.just({"fromCart": True}),
)


# One in two is for what there may be: numbers of products that are made up name none.
@schemathesis.hook("flatmap_case").apply_to(method="POST", path="/api/orders")
def with_products(context, case):
    def sent(body):
        case.body, case.media_type = body, "application/json"
        return case

    return st.one_of(st.just(case), ORDERS.map(sent))


forms = random.Random(os.environ["FUZZ_SEED"])


@schemathesis.hook("before_call")
def bounded(context, case, kwargs):
    headers = case.headers
    # Nobody waits longer than for a quick line; a halted one would keep each request for up to 30 s.
    preferred = str(headers.get("Prefer", "")).lower()
    if "wait" in preferred:
        headers["Prefer"] = "wait=1"
    # The other form of an export, which is asked for by a header that the description tells of as a content type.
    if case.operation.path.endswith(("/winners", "/buyers")) and not case.query:
        headers["Accept"] = forms.choice(["text/csv", "application/json"])


lock = threading.Lock()
counts = collections.Counter()


@schemathesis.hook("after_call")
def count(context, case, response):
    with lock:
        counts[case.operation.label, str(response.status_code)] += 1


@schemathesis.hook("after_network_error")
def count_none(context, case, request):
    with lock:
        counts[case.operation.label, "none"] += 1


@atexit.register
def tell():
    with open(os.environ["FUZZ_COUNTS"], "w") as file:
        json.dump([[*what, number] for what, number in sorted(counts.items())], file)
