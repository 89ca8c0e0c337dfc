//! The rules of a product's sale, without I/O.

use chrono::{DateTime, Utc};

use crate::{campaign::is_paused, rejection::Rejection};

/// The highest limit per customer.
pub const MAX_PER_CUSTOMER: i64 = 1_000_000;

/// When a product is sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sale {
    /// First instant at which a submission counts; `None`: ever since.
    pub from: Option<DateTime<Utc>>,
    /// First instant at which a submission no longer counts; `None`: for ever.
    pub until: Option<DateTime<Utc>>,
    /// Since when nobody may submit; `None` while the sale is not paused.
    pub paused_at: Option<DateTime<Utc>>,
}

impl Sale {
    /// Whether an order was submitted when the product was sold: not in a pause, and from ≤ submittedAt < until.
    ///
    /// # Errors
    /// `SalePaused` or `ProductNotOnSale`.
    pub fn check(&self, submitted_at: DateTime<Utc>) -> Result<(), Rejection> {
        if is_paused(self.paused_at, submitted_at) {
            return Err(Rejection::SalePaused);
        }
        let is_begun = self.from.is_none_or(|from| from <= submitted_at);
        let is_over = self.until.is_some_and(|until| until <= submitted_at);
        if is_begun && !is_over { Ok(()) } else { Err(Rejection::ProductNotOnSale) }
    }
}

/// Of several products of an order the first rejection by the contract's precedence: a pause before a window.
#[must_use]
pub fn first_rejection(
    sales: impl Iterator<Item = Sale>,
    submitted_at: DateTime<Utc>,
) -> Option<Rejection> {
    let rejections = sales.filter_map(|sale| sale.check(submitted_at).err());
    rejections.min_by_key(|rejection| *rejection != Rejection::SalePaused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::{option, prelude::*};

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(millis)
    }

    proptest! {
        #[test]
        fn a_product_is_sold_in_its_window(
            from in option::of(0i64..100),
            until in option::of(0i64..100),
            paused in option::of(0i64..100),
            submitted in 0i64..100,
        ) {
            let sale = Sale { from: from.map(at), until: until.map(at), paused_at: paused.map(at) };
            let expected = if (paused.unwrap_or(100)..).contains(&submitted) {
                Err(Rejection::SalePaused)
            } else if (from.unwrap_or(0)..until.unwrap_or(100)).contains(&submitted) {
                Ok(())
            } else {
                Err(Rejection::ProductNotOnSale)
            };
            prop_assert_eq!(sale.check(at(submitted)), expected);
        }
    }

    #[test]
    fn a_pause_comes_before_a_window() {
        let (open, paused) = (Sale::default(), Sale { paused_at: Some(at(1)), ..Sale::default() });
        let over = Sale { until: Some(at(1)), ..Sale::default() };
        let first = |sales: &[Sale]| first_rejection(sales.iter().copied(), at(2));
        assert_eq!(first(&[open]), None);
        assert_eq!(first(&[open, over]), Some(Rejection::ProductNotOnSale));
        assert_eq!(first(&[over, open, paused]), Some(Rejection::SalePaused));
    }
}
