//! Each promise, broken in a sale that is right but for that.

mod effects;
mod noes;

use super::{rules::Anomaly, sale::sale};

#[test]
fn a_planted_anomaly_of_every_kind_is_caught() {
    let mut surprises = Vec::new();
    for (name, break_it, rules) in effects::ANOMALIES.iter().chain(noes::ANOMALIES) {
        let mut shop = sale();
        break_it(&mut shop);
        let report = shop.check();
        let complaining: Vec<&str> = report
            .verdicts
            .iter()
            .filter(|verdict| verdict.violations > 0)
            .map(|verdict| verdict.rule)
            .collect();
        let is_as_foreseen = complaining.len() == rules.len()
            && complaining.iter().zip(*rules).all(|(rule, part)| rule.contains(part));
        if !is_as_foreseen {
            surprises.push(format!(
                "{name}: foreseen {rules:?}
{report}"
            ));
        }
    }
    assert!(
        surprises.is_empty(),
        "{}",
        surprises.join(
            "

"
        )
    );
    for verdict in sale().check().verdicts {
        let is_caught =
            |(_, _, rules): &Anomaly| rules.iter().any(|part| verdict.rule.contains(part));
        assert!(
            effects::ANOMALIES.iter().chain(noes::ANOMALIES).any(is_caught),
            "no anomaly against: {}",
            verdict.rule
        );
    }
}
