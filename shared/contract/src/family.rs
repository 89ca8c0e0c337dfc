//! The families of lines: what is contended for.

/// Declares the families from one table: the enum, every family there is, and all look-ups.
macro_rules! families {
    ($($(#[$doc:meta])+ $variant:ident($name:literal, $former:literal, has_several_keys: $several:literal),)+) => {
        /// What a line is for. A line belongs to one family, and so does a kind of job: it stands in lines of that one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Family {
            $($(#[$doc])+ $variant,)+
        }

        impl Family {
            /// Every family there is.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in URLs, rows and queue names; never renamed, since queues outlive deploys.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The name by which releases before this one knew it: that of the one kind of job it had.
            #[must_use]
            pub const fn former_name(self) -> &'static str {
                match self { $(Self::$variant => $former,)+ }
            }

            /// Whether a job in these lines may have several keys, of which the first one or a pinned one decides.
            #[must_use]
            pub const fn has_several_keys(self) -> bool {
                match self { $(Self::$variant => $several,)+ }
            }
        }
    };
}

families! {
    /// Jobs that contend for one coupon campaign.
    Coupon("coupon", "issue-coupon", has_several_keys: false),
    /// Jobs that contend for products.
    Product("product", "place-order", has_several_keys: true),
}

impl Family {
    /// The family with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == name)
    }

    /// The family that an operator means, who may know it by its former name.
    ///
    /// # Errors
    /// What is expected.
    pub fn parse(name: &str) -> Result<Self, String> {
        let former = || Self::ALL.into_iter().find(|family| family.former_name() == name);
        let expected = || Self::ALL.map(Self::as_str).join(" or ");
        Self::from_name(name).or_else(former).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change_and_former_ones_are_understood() {
        assert_eq!(Family::ALL.map(Family::as_str), ["coupon", "product"]);
        assert_eq!(Family::ALL.map(Family::former_name), ["issue-coupon", "place-order"]);
        for family in Family::ALL {
            assert_eq!(Family::from_name(family.as_str()), Some(family));
            assert_eq!(Family::parse(family.as_str()), Ok(family));
            assert_eq!(Family::parse(family.former_name()), Ok(family));
        }
        assert_eq!(Family::parse("coupons"), Err("coupon or product".to_owned()));
    }
}
