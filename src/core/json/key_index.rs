//! Finds a column by its key, mostly without hashing: rows tend to name their keys in the order of the row before.

use std::collections::HashMap;

/// Keys and their places.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    keys: Vec<Box<str>>,
    places: HashMap<Box<str>, usize>,
    /// For each key the one that came after it last time; the first entry is for the start of a row.
    followers: Vec<usize>,
    previous: usize,
}

impl KeyIndex {
    /// An index of those keys in their order.
    pub(super) fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let mut index = Self::default();
        for key in keys {
            index.insert(key);
        }
        index
    }

    /// Says that a new row begins.
    pub(super) fn restart(&mut self) {
        self.previous = 0;
    }

    /// The place of `key`.
    pub(super) fn find(&mut self, key: &str) -> Option<usize> {
        let guess = self.followers.get(self.previous).copied().unwrap_or(0);
        let place = match self.keys.get(guess) {
            Some(guessed) if **guessed == *key => guess,
            _ => *self.places.get(key)?,
        };
        if let Some(follower) = self.followers.get_mut(self.previous) {
            *follower = place;
        }
        self.previous = place + 1;
        Some(place)
    }

    /// Adds a key that is not there yet; its place is the number of keys before it.
    pub(super) fn insert(&mut self, key: &str) -> usize {
        let place = self.keys.len();
        self.keys.push(key.into());
        self.places.insert(key.into(), place);
        self.followers.resize(place + 2, place + 1);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_in_any_order() {
        let keys = ["a", "b", "c", "d"];
        let mut index = KeyIndex::new(keys);
        for order in [
            [0, 1, 2, 3],
            [0, 1, 2, 3],
            [3, 2, 1, 0],
            [3, 2, 1, 0],
            [1, 3, 0, 2],
        ] {
            index.restart();
            for place in order {
                assert_eq!(index.find(keys[place]), Some(place));
            }
            assert_eq!(index.find("e"), None);
        }
        assert_eq!(index.insert("e"), 4);
        index.restart();
        assert_eq!(index.find("e"), Some(4));
        assert_eq!(index.find("a"), Some(0));
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        assert_eq!(KeyIndex::default().find(""), None);
    }
}
