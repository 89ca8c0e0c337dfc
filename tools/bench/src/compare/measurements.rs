//! What was measured, round by round.

/// A figure's name: `<scenario>.<side>[.<connections>].<metric>`.
pub(super) type Key = String;

/// Every value of every figure, in the order in which they were first measured.
#[derive(Debug, Default)]
pub(super) struct Measurements(Vec<(Key, Vec<f64>)>);

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Measurements {
    pub(super) fn add(&mut self, key: impl Into<Key>, value: f64) {
        let key = key.into();
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => self.0.push((key, vec![value])),
        }
    }

    /// All figures and their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    pub(super) fn figure(&self, key: &str) -> Option<Figure> {
        let (_, values) = self.iter().find(|(known, _)| *known == key)?;
        Figure::of(values)
    }

    pub(super) fn median(&self, key: &str) -> Option<f64> {
        Some(self.figure(key)?.median)
    }

    /// The medians of these in one; `None` if none of them was measured.
    pub(super) fn sum(&self, keys: impl Iterator<Item = Key>) -> Option<f64> {
        keys.filter_map(|key| self.median(&key)).reduce(|sum, more| sum + more)
    }
}

impl Figure {
    /// `None` of nothing.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(upper, *sorted.get(middle.checked_sub(1)?)?)
        } else {
            upper
        };
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let mut measurements = Measurements::default();
        for value in [3.0, 1.0, 2.0] {
            measurements.add("a", value);
        }
        measurements.add("b", 1.0);
        measurements.add("b", 2.0);
        assert_eq!(measurements.figure("a"), Some(Figure { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(measurements.median("b"), Some(1.5));
        assert_eq!(measurements.median("c"), None);
        assert_eq!(measurements.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b"]);
    }
}
