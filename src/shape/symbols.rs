//! The values that symbols have in one execution.

use smallvec::SmallVec;

/// A small map from symbol to value, ordered by symbol; up to eight entries need no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Symbols {
    entries: SmallVec<[(char, i64); 8]>,
}

impl Symbols {
    /// A map in which no symbol has a value.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `symbol` the value `value`, replacing any earlier one.
    pub fn set(&mut self, symbol: char, value: i64) {
        match self.position(symbol) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) => self.entries.insert(at, (symbol, value)),
        }
    }

    /// The value of `symbol`, if it has one.
    pub fn get(&self, symbol: char) -> Option<i64> {
        self.position(symbol).ok().map(|at| self.entries[at].1)
    }

    /// All symbols with their values, in the order of the symbols.
    pub fn iter(&self) -> impl Iterator<Item = (char, i64)> + '_ {
        self.entries.iter().copied()
    }

    /// The number of symbols that have a value.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no symbol has a value.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn position(&self, symbol: char) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&symbol, |&(name, _)| name)
    }
}

impl FromIterator<(char, i64)> for Symbols {
    fn from_iter<I: IntoIterator<Item = (char, i64)>>(iter: I) -> Self {
        let mut symbols = Self::new();
        for (symbol, value) in iter {
            symbols.set(symbol, value);
        }
        symbols
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_values_replace_earlier_ones() {
        let mut symbols = Symbols::new();
        for (at, name) in "zyxwvutsrq".chars().enumerate() {
            symbols.set(name, at as i64);
        }
        symbols.set('z', 42);
        assert_eq!(symbols.len(), 10);
        assert_eq!(symbols.get('z'), Some(42));
        assert_eq!(symbols.get('q'), Some(9));
        assert_eq!(symbols.get('a'), None);
        assert!(symbols.iter().is_sorted());
    }

    #[test]
    fn equality_ignores_the_order_of_setting() {
        let forward: Symbols = [('a', 1), ('b', 2)].into_iter().collect();
        let backward: Symbols = [('b', 2), ('a', 1)].into_iter().collect();
        assert_eq!(forward, backward);
    }
}
