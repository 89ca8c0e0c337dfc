//! Jobs: contended writes that were accepted but not yet decided, and how they travel.

pub mod cancel_order;
pub mod envelope;
pub mod held_key;
pub mod id;
pub mod issue_coupon;
pub mod outcome;
pub mod place_order;

pub use cancel_order::CancelOrder;
pub use envelope::{Envelope, Idempotency, Undecodable};
pub use id::JobId;
pub use issue_coupon::IssueCoupon;
pub use outcome::{HeardBatch, Settled, SettledBatch, Status};
pub use place_order::PlaceOrder;

use serde_json::value::{RawValue, to_raw_value};

use crate::{
    family::Family,
    ids::{CouponId, ProductId},
    order,
};

/// Declares the kinds of jobs from one table: the enum, every kind there is, and all look-ups.
macro_rules! job_kinds {
    ($($(#[$doc:meta])+ $variant:ident($name:literal, $number:literal, $family:ident),)+) => {
        /// The kinds of jobs. Adding one is: add it to the table here and follow the compiler, then the tests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum JobKind {
            $($(#[$doc])+ $variant,)+
        }

        impl JobKind {
            /// Every kind there is.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in messages, rows and answers; never renamed, since messages outlive deploys.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The kind's number in the bits of a job id (0..=15); never renumbered.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The family of the lines in which its jobs stand.
            #[must_use]
            pub const fn family(self) -> Family {
                match self { $(Self::$variant => Family::$family,)+ }
            }
        }
    };
}

job_kinds! {
    /// Give one coupon of a campaign to a user.
    IssueCoupon("issue-coupon", 1, Coupon),
    /// Sell products to a user.
    PlaceOrder("place-order", 2, Product),
    /// Undo an order.
    CancelOrder("cancel-order", 3, Product),
}

impl JobKind {
    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A job's own fields, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// See [`JobKind::IssueCoupon`].
    IssueCoupon(IssueCoupon),
    /// See [`JobKind::PlaceOrder`].
    PlaceOrder(PlaceOrder),
    /// See [`JobKind::CancelOrder`].
    CancelOrder(CancelOrder),
}

impl Job {
    /// The job's kind.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::IssueCoupon(_) => JobKind::IssueCoupon,
            Self::PlaceOrder(_) => JobKind::PlaceOrder,
            Self::CancelOrder(_) => JobKind::CancelOrder,
        }
    }

    /// The job's own fields as JSON: one object.
    ///
    /// # Errors
    /// Never: numbers, names and lists of them always serialize.
    pub fn to_json(&self) -> serde_json::Result<Box<RawValue>> {
        match self {
            Self::IssueCoupon(job) => to_raw_value(job),
            Self::PlaceOrder(job) => to_raw_value(job),
            Self::CancelOrder(job) => to_raw_value(job),
        }
    }

    /// Reads what [`Self::to_json`] wrote for a job of this kind.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(kind: JobKind, json: &RawValue) -> Result<Self, String> {
        let job = match kind {
            JobKind::IssueCoupon => serde_json::from_str(json.get()).map(Self::IssueCoupon),
            JobKind::PlaceOrder => serde_json::from_str(json.get()).map(Self::PlaceOrder),
            JobKind::CancelOrder => serde_json::from_str(json.get()).map(Self::CancelOrder),
        };
        let job = job.map_err(|error| error.to_string())?;
        match &job {
            Self::PlaceOrder(order) if !order.is_valid() => Err("no valid items".to_owned()),
            Self::CancelOrder(order) if !order.is_valid() => {
                Err("no valid cancellation".to_owned())
            }
            Self::IssueCoupon(_) | Self::PlaceOrder(_) | Self::CancelOrder(_) => Ok(job),
        }
    }

    /// What the job contends for, ascending: the coupon, or the products of the order.
    #[must_use]
    pub fn keys(&self) -> Keys<'_> {
        match self {
            Self::IssueCoupon(job) => Keys::Coupon(Some(job.coupon_id.get())),
            Self::PlaceOrder(job) => Keys::Items(job.items.iter()),
            Self::CancelOrder(job) => Keys::Products(job.product_ids.iter()),
        }
    }

    /// What the job names beside the first of its [keys](Self::keys), for whoever looks for it.
    pub fn mentions(&self) -> impl Iterator<Item = (Mention, i64)> {
        let (coupon, order) = match self {
            Self::IssueCoupon(_) => (None, None),
            Self::PlaceOrder(job) => (job.coupon_id.map(CouponId::get), None),
            Self::CancelOrder(job) => (None, Some(job.order_id.get())),
        };
        let products = self.keys().skip(1).map(|id| (Mention::Product, id));
        let coupon = coupon.map(|id| (Mention::Coupon, id));
        products.chain(coupon).chain(order.map(|id| (Mention::Order, id)))
    }
}

/// What kind of thing a job names. The names stand in rows: they are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mention {
    /// A campaign.
    Coupon,
    /// A product.
    Product,
    /// An order that is there.
    Order,
}

impl Mention {
    /// Whether what such a job did, where it succeeded, tells it as well: an order has its coupon.
    #[must_use]
    pub const fn stands_in_the_effect(self) -> bool {
        match self {
            Self::Coupon => true,
            Self::Product | Self::Order => false,
        }
    }

    /// The name in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coupon => "coupon",
            Self::Product => "product",
            Self::Order => "order",
        }
    }
}

/// The iterator of [`Job::keys`]: allocates nothing, since every submission asks.
#[derive(Debug, Clone)]
pub enum Keys<'a> {
    /// The campaign of the coupon: one key, or none once it was given.
    Coupon(Option<i64>),
    /// The order's items, whose product ids are the keys.
    Items(std::slice::Iter<'a, order::Item>),
    /// The products themselves.
    Products(std::slice::Iter<'a, ProductId>),
}

impl Iterator for Keys<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        match self {
            Self::Coupon(id) => id.take(),
            Self::Items(items) => items.next().map(|item| item.product_id.get()),
            Self::Products(ids) => ids.next().map(|id| id.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_never_change() {
        let pinned: Vec<_> = JobKind::ALL.map(|kind| (kind.as_str(), kind.number())).to_vec();
        assert_eq!(pinned, [("issue-coupon", 1), ("place-order", 2), ("cancel-order", 3)]);
        for kind in JobKind::ALL {
            assert_eq!(JobKind::from_number(kind.number()), Some(kind));
            assert_eq!(JobKind::from_name(kind.as_str()), Some(kind));
            assert!(kind.number() < 16, "it has four bits");
        }
    }
}
