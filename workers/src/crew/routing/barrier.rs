//! Which lines wait for which: the order within a key survives a change of the routing, and nobody else
//! waits for it.

use std::collections::BTreeSet;

use firstcome_contract::{
    family::Family,
    line::{LineName, Routing, SLOTS, slot},
};

/// Whether a job could stand in this line by the older routing and in that one by the newer.
pub(super) fn feeds(
    family: Family,
    (line, older): (LineName, &Routing),
    (later, newer): (LineName, &Routing),
) -> bool {
    let several = family.has_several_keys();
    match (line, later) {
        (LineName::Partition(_), LineName::Partition(_)) => {
            slots(line, older).any(|slot| newer.shared_line(slot) == later)
        }
        // With several keys, a lower one may have been the first.
        (LineName::Partition(_), LineName::Pin(key)) => {
            !older.pins.contains_key(&key) && (several || older.shared_line(slot(key)) == line)
        }
        (LineName::Pin(key), LineName::Partition(_)) => {
            !newer.pins.contains_key(&key) && (several || newer.shared_line(slot(key)) == later)
        }
        // The lowest of a job's pinned keys is the one that counts.
        (LineName::Pin(key), LineName::Pin(later)) => {
            let stood_elsewhere = older.pins.contains_key(&later) && later < key;
            let stands_elsewhere = newer.pins.contains_key(&key) && key < later;
            key == later || several && !stood_elsewhere && !stands_elsewhere
        }
    }
}

/// Whether a key that stands in `later` by the newer routing had nothing to do with `line`.
fn has_strangers(
    (line, older): (LineName, &Routing),
    (later, newer): (LineName, &Routing),
) -> bool {
    match later {
        LineName::Partition(_) => {
            let moved = |key: &i64| {
                line != LineName::Pin(*key) && newer.line(std::iter::once(*key)) == later
            };
            slots(later, newer).any(|slot| older.shared_line(slot) != line)
                || older.pins.keys().any(moved)
        }
        LineName::Pin(key) => older.line(std::iter::once(key)) != line,
    }
}

/// The slots that this routing deals to a partition.
fn slots(line: LineName, routing: &Routing) -> impl Iterator<Item = u16> {
    (0..SLOTS).filter(move |slot| routing.shared_line(*slot) == line)
}

/// How much of what is wanted may be brought about while these lines are long: a line's backlog must not
/// hold up keys that had nothing to do with it. The rest follows when they are short.
pub(super) fn feasible(
    family: Family,
    current: &Routing,
    wanted: &Routing,
    long: &[(LineName, &Routing)],
) -> Routing {
    let held_up = |routing: &Routing| -> BTreeSet<(usize, LineName)> {
        let holds_up = |line: (LineName, &Routing), later| {
            feeds(family, line, (later, routing)) && has_strangers(line, (later, routing))
        };
        let by = |(index, line)| {
            routing
                .lines()
                .filter(move |later| holds_up(line, *later))
                .map(move |later| (index, later))
        };
        long.iter().copied().enumerate().flat_map(by).collect()
    };
    if long.is_empty() {
        return wanted.clone();
    }
    let mut feasible = current.clone();
    let mut already = held_up(&feasible);
    let mut attempt = |change: &dyn Fn(&mut Routing)| {
        let mut changed = feasible.clone();
        change(&mut changed);
        let then = held_up(&changed);
        if then.is_subset(&already) {
            (feasible, already) = (changed, then);
        }
    };
    let pins = |routing: &Routing| routing.pins.keys().copied().collect::<BTreeSet<i64>>();
    for key in pins(wanted).difference(&pins(current)) {
        attempt(&|routing| _ = routing.pins.insert(*key, 0));
    }
    for key in pins(current).difference(&pins(wanted)) {
        attempt(&|routing| _ = routing.pins.remove(key));
    }
    attempt(&|routing| routing.partitions = wanted.partitions);
    feasible
}

#[cfg(test)]
mod tests {
    use super::*;
    use firstcome_contract::line::Naming;
    use proptest::prelude::*;

    fn routing(partitions: u16, pins: &[i64]) -> Routing {
        let pins = pins.iter().map(|key| (*key, 0)).collect();
        Routing { generation: 1, partitions, pins, naming: Naming::Family }
    }

    fn any_routing() -> impl Strategy<Value = Routing> {
        let pins = prop::collection::btree_set(1i64..12, 0..5);
        (1u16..9, pins).prop_map(|(partitions, pins)| {
            routing(partitions, &pins.into_iter().collect::<Vec<_>>())
        })
    }

    proptest! {
        #[test]
        fn a_job_that_moves_is_waited_for(
            older in any_routing(), newer in any_routing(), keys in prop::collection::btree_set(1i64..12, 1..4),
        ) {
            let first = keys.first().copied();
            for (family, keys) in [
                (Family::Coupon, first.into_iter().collect::<Vec<_>>()),
                (Family::Product, keys.into_iter().collect()),
            ] {
                let stood = older.line(keys.iter().copied());
                let stands = newer.line(keys.iter().copied());
                prop_assert!(feeds(family, (stood, &older), (stands, &newer)), "{keys:?}: {stood} {stands}");
            }
        }

        #[test]
        fn a_line_waits_for_itself_alone_where_nothing_changes(routing in any_routing()) {
            for family in Family::ALL {
                for line in routing.lines() {
                    for later in routing.lines() {
                        let is_fed = feeds(family, (line, &routing), (later, &routing));
                        // A partition may have no key, and a pin is one.
                        prop_assert_eq!(is_fed, line == later, "{} {}", line, later);
                    }
                }
            }
        }

        #[test]
        fn what_is_feasible_holds_up_no_stranger(
            current in any_routing(), wanted in any_routing(), chosen: prop::sample::Index, key in 1i64..12,
        ) {
            let lines: Vec<LineName> = current.lines().collect();
            let long = [(*chosen.get(&lines), &current)];
            for family in Family::ALL {
                let next = feasible(family, &current, &wanted, &long);
                let (stood, stands) = (current.line(std::iter::once(key)), next.line(std::iter::once(key)));
                let waits = feeds(family, long[0], (stands, &next));
                prop_assert!(!waits || stood == long[0].0, "{key} waits for {}", long[0].0);
                prop_assert_eq!(feasible(family, &current, &wanted, &[]), wanted.clone());
            }
        }
    }

    #[test]
    fn a_pinned_backlog_holds_up_nobody() {
        let (current, backlog) = (routing(4, &[17]), LineName::Pin(17));
        let of_coupons =
            |wanted: &Routing| feasible(Family::Coupon, &current, wanted, &[(backlog, &current)]);
        let all = [routing(4, &[17, 20]), routing(7, &[17]), routing(7, &[3, 17])];
        for wanted in all {
            assert_eq!(of_coupons(&wanted), wanted);
        }
        assert_eq!(
            of_coupons(&routing(4, &[])),
            current,
            "its key gives the line back when it is short"
        );
        assert_eq!(
            of_coupons(&routing(2, &[20])),
            routing(2, &[17, 20]),
            "and the rest is done at once"
        );
        let orders =
            |wanted: &Routing| feasible(Family::Product, &current, wanted, &[(backlog, &current)]);
        assert_eq!(orders(&routing(4, &[17, 20])), routing(4, &[17, 20]));
        assert_eq!(orders(&routing(4, &[3, 17])), current, "orders of both would move");
    }

    #[test]
    fn who_waited_for_a_backlog_anyway_may_move() {
        let current = routing(4, &[]);
        let backlog = current.line(std::iter::once(17));
        let next =
            |wanted: &Routing| feasible(Family::Coupon, &current, wanted, &[(backlog, &current)]);
        assert_eq!(
            next(&routing(4, &[17])),
            routing(4, &[17]),
            "the hot key leaves its neighbours"
        );
        assert_eq!(next(&routing(8, &[])), routing(8, &[]), "every line is of one old one");
        assert_eq!(next(&routing(2, &[])), current, "two lines would become one");
    }
}
