//! The rules by which a coupon is issued or refused: no database, no clock.

use std::collections::{HashMap, HashSet};

use firstcome_contract::{
    campaign::Campaign,
    ids::{CouponId, UserId},
    job::JobId,
    rejection::Rejection,
};

use super::Holding;

/// A user's request for a coupon, as of its submission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) job_id: JobId,
    pub(super) user_id: UserId,
    pub(super) coupon_id: CouponId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Issue { issue_number: i64 },
    Reject(Rejection),
}

/// What a batch of requests is decided against; deciding moves it forward.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) campaigns: HashMap<CouponId, Campaign>,
    pub(super) users: HashSet<UserId>,
    pub(super) holdings: HashSet<Holding>,
}

impl World {
    /// Decides the next request of the line. The order of the checks is the contract's precedence.
    pub(super) fn decide(&mut self, request: &Request) -> Decision {
        match self.issue(request) {
            Ok(issue_number) => Decision::Issue { issue_number },
            Err(rejection) => Decision::Reject(rejection),
        }
    }

    fn issue(&mut self, request: &Request) -> Result<i64, Rejection> {
        let holding = (request.user_id, request.coupon_id);
        if !self.users.contains(&request.user_id) {
            return Err(Rejection::UserNotFound);
        }
        let campaign =
            self.campaigns.get_mut(&request.coupon_id).ok_or(Rejection::CouponNotFound)?;
        campaign.check_window(request.job_id.submitted_at())?;
        if self.holdings.contains(&holding) {
            return Err(Rejection::CouponAlreadyIssued);
        }
        campaign.check_stock()?;

        campaign.issued += 1;
        self.holdings.insert(holding);
        Ok(campaign.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(millis)
    }

    fn world(total: i64, issued: i64) -> World {
        let (starts_at, ends_at, paused_at) = (at(100), at(200), None);
        let campaign = Campaign { starts_at, ends_at, total, issued, paused_at };
        World {
            campaigns: HashMap::from([(CouponId::new(1), campaign)]),
            users: (1..=20).map(UserId::new).collect(),
            holdings: HashSet::new(),
        }
    }

    fn request(user: i64, coupon: i64, millis: i64) -> Request {
        Request {
            job_id: JobId::from(JobId::lowest_at(at(millis))),
            user_id: UserId::new(user),
            coupon_id: CouponId::new(coupon),
        }
    }

    #[test]
    fn each_rejection_comes_before_the_next_one() {
        // Every fault at once, then one fault less at a time.
        let mut world = world(1, 1);
        world.holdings.insert((UserId::new(1), CouponId::new(1)));
        let pause = |world: &mut World, paused_at| {
            world.campaigns.get_mut(&CouponId::new(1)).unwrap().paused_at = paused_at;
        };
        let reject = |world: &mut World, user, coupon, millis| match world
            .decide(&request(user, coupon, millis))
        {
            Decision::Reject(rejection) => rejection,
            decision @ Decision::Issue { .. } => panic!("{decision:?}"),
        };
        pause(&mut world, Some(at(99)));
        assert_eq!(reject(&mut world, 99, 99, 99), Rejection::UserNotFound);
        assert_eq!(reject(&mut world, 1, 99, 99), Rejection::CouponNotFound);
        assert_eq!(reject(&mut world, 1, 1, 99), Rejection::SalePaused);
        assert_eq!(reject(&mut world, 1, 1, 200), Rejection::SalePaused);
        pause(&mut world, None);
        assert_eq!(reject(&mut world, 1, 1, 99), Rejection::CouponNotStarted);
        assert_eq!(reject(&mut world, 1, 1, 200), Rejection::CouponEnded);
        assert_eq!(reject(&mut world, 1, 1, 199), Rejection::CouponAlreadyIssued);
        assert_eq!(reject(&mut world, 2, 1, 100), Rejection::CouponSoldOut);
    }

    proptest! {
        /// The promises of a drop, whatever comes in whatever order and however it is batched.
        #[test]
        fn first_come_first_served(
            total in 0i64..12,
            paused in prop::option::of(0i64..300),
            line in prop::collection::vec((1i64..25, 0i64..300), 0..80),
        ) {
            let mut world = world(total, 0);
            world.campaigns.get_mut(&CouponId::new(1)).unwrap().paused_at = paused.map(at);
            let mut winners = Vec::new();
            for (user, millis) in line {
                let open = 100..paused.unwrap_or(200).min(200);
                let eligible = user <= 20 && open.contains(&millis) && !winners.contains(&user);
                match world.decide(&request(user, 1, millis)) {
                    Decision::Issue { issue_number } => {
                        prop_assert!(eligible);
                        winners.push(user);
                        prop_assert_eq!(issue_number, i64::try_from(winners.len()).unwrap());
                        prop_assert!(issue_number <= total);
                    }
                    Decision::Reject(Rejection::CouponSoldOut) => {
                        prop_assert!(eligible);
                        prop_assert_eq!(i64::try_from(winners.len()).unwrap(), total);
                    }
                    Decision::Reject(_) => prop_assert!(!eligible),
                }
            }
            prop_assert_eq!(world.campaigns[&CouponId::new(1)].issued, i64::try_from(winners.len()).unwrap());
        }
    }
}
