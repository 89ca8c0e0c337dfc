//! The acts of the demo: each opens a sale, waits until all of it is settled, reports and audits it.

pub(crate) mod coupon_drop;
pub(crate) mod product_sale;
pub(crate) mod returns;
