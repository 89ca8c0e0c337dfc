//! How long a sale takes, by how many come and what a line settles: the rule alone. Everybody who comes is taken for a
//! job in a line; who comes after it is known to be sold out is answered without one, so a sale is over sooner than this
//! says, never later.

/// Who comes for what.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// How many users come, once each.
    pub users: u64,
    /// How many units there are, one for each.
    pub stock: u64,
    /// Over how many lines they are spread, evenly: one for one key.
    pub lines: u64,
    /// In how many seconds they come, evenly.
    pub seconds_of_arrival: f64,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Users who get a unit.
    pub won: u64,
    /// Users for whom there is none left.
    pub too_late: u64,
    /// The most jobs that wait in a line at a time.
    pub waiting: u64,
    /// When the last unit is gone, after the start; `None` if there are more than users.
    pub sold_out_seconds: Option<f64>,
    /// When everybody has an outcome, after the start.
    pub drain_seconds: f64,
    /// How long all but one in a hundred wait at most.
    pub p99_wait_seconds: f64,
}

/// What comes of this demand where a line settles so many jobs per second, whatever the other lines do.
#[must_use]
pub fn forecast(demand: Demand, rate: f64) -> Forecast {
    let Demand { users, stock, lines, seconds_of_arrival } = demand;
    let won = users.min(stock);
    // Those of the longest line.
    let in_line = float(users.div_ceil(lines.max(1)));
    let work = in_line / rate;
    // How far the line is behind when the last one comes.
    let behind = (work - seconds_of_arrival).max(0.0);
    let sold_out = (won == stock && users > 0).then(|| {
        let (share, all) = (float(stock) / float(users), float(stock) / float(lines.max(1)));
        (all / rate).max(share * seconds_of_arrival)
    });
    Forecast {
        won,
        too_late: users - won,
        waiting: whole((behind * rate).min(in_line)),
        sold_out_seconds: sold_out,
        drain_seconds: work.max(seconds_of_arrival),
        p99_wait_seconds: behind * 0.99,
    }
}

/// How many lines it takes until all but one in a hundred wait no longer than this.
#[must_use]
pub fn lines_for(demand: Demand, rate: f64, p99_wait_seconds: f64) -> u64 {
    let most = whole((p99_wait_seconds / 0.99 + demand.seconds_of_arrival) * rate);
    // One job takes what it takes.
    demand.users.div_ceil(most.max(1)).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts users beyond 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rounding of floats.
    const ABOUT: f64 = 1e-6;

    #[test]
    fn a_drop_by_hand() {
        let all_at_once = Demand { users: 10_000, stock: 100, lines: 1, seconds_of_arrival: 0.0 };
        let told = forecast(all_at_once, 1_000.0);
        assert_eq!((told.won, told.too_late, told.waiting), (100, 9_900, 10_000));
        assert_eq!(told.sold_out_seconds, Some(0.1));
        assert!((told.drain_seconds - 10.0).abs() < ABOUT);
        assert!((told.p99_wait_seconds - 9.9).abs() < ABOUT);
        // They come more slowly than they are settled: nobody waits.
        let slowly = Demand { seconds_of_arrival: 20.0, ..all_at_once };
        let told = forecast(slowly, 1_000.0);
        assert_eq!((told.waiting, told.p99_wait_seconds), (0, 0.0));
        assert!((told.drain_seconds - 20.0).abs() < ABOUT);
        assert_eq!(lines_for(all_at_once, 1_000.0, 2.97), 4);
        assert_eq!(lines_for(slowly, 1_000.0, 1.0), 1);
    }

    prop_compose! {
        fn demands()(users in 0u64..3_000_000, stock in 0u64..3_000_000, lines in 1u64..64, arrival in 0.0f64..600.0) -> Demand {
            Demand { users, stock, lines, seconds_of_arrival: arrival }
        }
    }

    fn is_no_better(worse: &Forecast, better: &Forecast) -> bool {
        worse.drain_seconds >= better.drain_seconds - ABOUT
            && worse.p99_wait_seconds >= better.p99_wait_seconds - ABOUT
            && worse.waiting + 1 >= better.waiting
    }

    proptest! {
        #[test]
        fn more_users_are_never_served_sooner(demand in demands(), more in 0u64..100_000, rate in 1.0f64..20_000.0) {
            let crowded = Demand { users: demand.users + more, ..demand };
            prop_assert!(is_no_better(&forecast(crowded, rate), &forecast(demand, rate)));
        }

        #[test]
        fn with_more_lines_or_faster_ones_nobody_is_served_later(demand in demands(), more in 0u64..64, rate in 1.0f64..20_000.0, faster in 1.0f64..4.0) {
            let spread = Demand { lines: demand.lines + more, ..demand };
            prop_assert!(is_no_better(&forecast(demand, rate), &forecast(spread, rate)));
            let told = (forecast(demand, rate), forecast(demand, rate * faster));
            prop_assert!(told.0.drain_seconds >= told.1.drain_seconds - ABOUT);
            prop_assert!(told.0.p99_wait_seconds >= told.1.p99_wait_seconds - ABOUT);
        }

        #[test]
        fn everybody_has_an_outcome_and_no_unit_is_given_twice(demand in demands(), rate in 1.0f64..20_000.0) {
            let told = forecast(demand, rate);
            prop_assert_eq!(told.won + told.too_late, demand.users);
            prop_assert!(told.won <= demand.stock && (told.too_late == 0 || told.won == demand.stock));
            prop_assert!(told.waiting * demand.lines <= demand.users + demand.lines * demand.lines);
            prop_assert!(told.drain_seconds >= demand.seconds_of_arrival && told.p99_wait_seconds <= told.drain_seconds);
            prop_assert_eq!(told.sold_out_seconds.is_some(), demand.users > 0 && demand.stock <= demand.users);
            prop_assert!(told.sold_out_seconds.is_none_or(|sold_out| sold_out <= told.drain_seconds + ABOUT));
            // All of a line's work fits into the time that it takes.
            prop_assert!(told.drain_seconds * rate + ABOUT * rate >= float(demand.users) / float(demand.lines));
        }

        #[test]
        fn so_many_lines_are_enough_and_one_less_is_not(demand in demands(), rate in 1.0f64..20_000.0, wait in 0.1f64..120.0) {
            let lines = lines_for(demand, rate, wait);
            let wait_with = |lines| forecast(Demand { lines, ..demand }, rate).p99_wait_seconds;
            let one = 1.0 / rate;
            prop_assert!(wait_with(lines) <= wait.max(one) + ABOUT);
            prop_assert!(lines == 1 || wait_with(lines - 1) > wait - one - ABOUT);
        }
    }
}
