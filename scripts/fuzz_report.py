"""What came of the requests of scripts/fuzz: fuzz_report.py all|classes|never FILE..., the files of fuzz_hooks.py."""

import collections
import json
import sys


def main():
    what, rows = sys.argv[1], []
    for path in sys.argv[2:]:
        with open(path) as file:
            rows += json.load(file)
    statuses, of_operation = collections.Counter(), collections.defaultdict(collections.Counter)
    for operation, status, number in rows:
        statuses[status] += number
        of_operation[operation][status] += number
    match what:
        case "all":
            print(statuses.total())
        case "classes":
            classes = collections.Counter()
            for status, number in statuses.items():
                classes[status if status == "none" else status[0] + "xx"] += number
            print(f"{statuses.total()} requests:", ", ".join(f"{name} {number}" for name, number in sorted(classes.items())))
            print("  " + ", ".join(f"{status} {number}" for status, number in sorted(statuses.items())))
        case "never":
            for operation, found in sorted(of_operation.items()):
                # Methods that there are not are tried, too.
                if not any(status[0] in "23" for status in found) and set(found) != {"405"}:
                    told = ", ".join(f"{status} {number}" for status, number in sorted(found.items()))
                    print(f"  never answered with 2xx: {operation} ({told})")


if __name__ == "__main__":
    main()
