//! The roles: what a worker process can do for as long as it runs.

use clap::Subcommand;
use firstcome_contract::family::Family;

use crate::config::WorkerArgs;

/// Declares the roles from one table: the enum, every role there is, and the commands that start them.
macro_rules! roles {
    ($($(#[doc = $help:literal])+ $variant:ident($name:literal $(, formerly $former:literal)?),)+) => {
        /// A role.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum RoleName {
            $($(#[doc = $help])+ $variant,)+
        }

        impl RoleName {
            /// Every role there is.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name of its command, also in metrics and readiness.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        /// One role in a process of its own.
        #[derive(Debug, Subcommand)]
        pub enum RoleCommand {
            $($(#[doc = $help])+ #[command(name = $name $(, alias = $former)?)] $variant(WorkerArgs),)+
        }

        impl RoleCommand {
            /// Which role, and what it needs.
            #[must_use]
            pub fn parts(self) -> (RoleName, WorkerArgs) {
                match self { $(Self::$variant(args) => (RoleName::$variant, args),)+ }
            }
        }
    };
}

roles! {
    /// Role: settle the jobs of the coupon lines: issue coupons.
    Coupons("coupons", formerly "issue-coupon"),
    /// Role: settle the jobs of the product lines: place orders.
    Products("products", formerly "place-order"),
    /// Role: publish events: of orders and coupons, and of what is sold out.
    RelayOutbox("relay-outbox"),
    /// Role: count orders, completed and cancelled, into the sales statistics; the daily jobs (recount, purge).
    UpdateSalesStats("update-sales-stats"),
    /// Role: send events to the data platform: those that it asks for.
    SendToDataPlatform("send-to-data-platform"),
}

impl RoleName {
    /// The role that serves the lines of a family.
    #[must_use]
    pub const fn of(family: Family) -> Self {
        match family {
            Family::Coupon => Self::Coupons,
            Family::Product => Self::Products,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn role(name: &str) -> RoleName {
        let url = "--database-url=postgres://localhost/x";
        let cli = crate::cli::Cli::try_parse_from(["firstcome-worker", name, url]).unwrap();
        let crate::cli::Command::Role(command) = cli.command else { panic!("no role: {name}") };
        command.parts().0
    }

    #[test]
    fn every_role_has_its_command_and_former_names_are_understood() {
        for name in RoleName::ALL {
            assert_eq!(role(name.as_str()), name);
        }
        for family in Family::ALL {
            assert_eq!(role(family.former_name()), RoleName::of(family));
        }
    }
}
