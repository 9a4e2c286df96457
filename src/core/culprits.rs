//! Whose code has cost somebody else too much, in a place of fixed size in which nobody is ever forgotten for another.
//!
//! What is remembered becomes coarser instead: first single things, then everything of an owner who has had several of them, and
//! where there is no room for another owner, everything of everybody.

/// Things of one owner that are remembered one by one. With another one, the owner is.
pub const MAX_OF_OWNER: usize = 2;

/// Things and owners that find room.
pub const ROOM: usize = 128;

/// Things, and owners of things, that are not to be trusted. Both go by numbers that their owners cannot choose.
#[derive(Debug, Clone, Copy)]
pub struct Culprits {
    /// What has been found, up to the first empty place.
    known: [Option<Culprit>; ROOM],
    is_everybody: bool,
}

/// All of an owner's things, or one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Culprit {
    owner: u32,
    thing: Option<i64>,
}

impl Default for Culprits {
    fn default() -> Self {
        Self {
            known: [None; ROOM],
            is_everybody: false,
        }
    }
}

impl Culprits {
    /// Adds a thing of an owner's.
    pub fn add(&mut self, owner: u32, thing: i64) {
        if self.includes(owner, thing) {
            return;
        }
        let mut all: Vec<Culprit> = self.iter().collect();
        all.push(Culprit {
            owner,
            thing: Some(thing),
        });
        if all.iter().filter(|one| one.owner == owner).count() > MAX_OF_OWNER {
            all = without_things(all, |one| one == owner);
        }
        if all.len() > ROOM {
            all = without_things(all, |_| true);
        }
        self.is_everybody = all.len() > ROOM;
        self.known = std::array::from_fn(|place| all.get(place).copied());
    }

    /// Whether a thing is among them, by itself or with its owner or everybody.
    #[must_use]
    pub fn includes(&self, owner: u32, thing: i64) -> bool {
        self.is_everybody
            || self
                .iter()
                .any(|one| one.owner == owner && one.thing.is_none_or(|known| known == thing))
    }

    /// Things of owners of whom not all is meant.
    pub fn things(&self) -> impl Iterator<Item = i64> {
        self.iter().filter_map(|one| one.thing)
    }

    /// Owners of whom everything is meant.
    pub fn owners(&self) -> impl Iterator<Item = u32> {
        self.iter()
            .filter(|one| one.thing.is_none())
            .map(|one| one.owner)
    }

    /// Whether there were more of them than can be told from others, so that everything of everybody is meant.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.is_everybody
    }

    fn iter(&self) -> impl Iterator<Item = Culprit> {
        self.known.iter().flatten().copied()
    }
}

/// The same, with these owners as a whole in place of things of theirs.
fn without_things(all: Vec<Culprit>, is_meant: impl Fn(u32) -> bool) -> Vec<Culprit> {
    let mut coarser: Vec<Culprit> = Vec::new();
    for one in all {
        let one = Culprit {
            thing: one.thing.filter(|_| !is_meant(one.owner)),
            ..one
        };
        if !coarser.contains(&one) {
            coarser.push(one);
        }
    }
    coarser
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[(u32, i64)]) -> Culprits {
        let mut culprits = Culprits::default();
        for (owner, thing) in all {
            culprits.add(*owner, *thing);
        }
        culprits
    }

    #[test]
    fn one_thing_says_nothing_of_its_owners_others() {
        let culprits = of(&[(1, 10), (1, 11)]);
        assert!(culprits.includes(1, 10) && culprits.includes(1, 11));
        assert!(!culprits.includes(1, 12) && !culprits.includes(2, 10));
        assert_eq!(culprits.owners().count(), 0);
    }

    #[test]
    fn several_things_are_their_owner() {
        let mut culprits = of(&[(1, 10), (2, 20), (1, 11), (1, 12)]);
        assert!(culprits.includes(1, 99));
        assert!(culprits.includes(2, 20) && !culprits.includes(2, 21));
        for thing in 0..1_000 {
            culprits.add(1, thing);
        }
        assert_eq!(culprits.owners().collect::<Vec<_>>(), [1]);
        assert_eq!(culprits.things().collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn what_finds_no_room_makes_others_coarser_and_nobody_forgotten() {
        let mut culprits = Culprits::default();
        let mut added = Vec::new();
        for owner in 0..u32::try_from(ROOM).unwrap() {
            for thing in [2 * i64::from(owner), 2 * i64::from(owner) + 1] {
                culprits.add(owner, thing);
                added.push((owner, thing));
                assert!(
                    added
                        .iter()
                        .all(|(owner, thing)| culprits.includes(*owner, *thing))
                );
            }
        }
        assert!(!culprits.is_everybody() && !culprits.includes(u32::MAX, 0));
        culprits.add(u32::MAX, -1);
        assert!(culprits.is_everybody() && culprits.includes(u32::MAX - 1, -2));
        assert!(
            added
                .iter()
                .all(|(owner, thing)| culprits.includes(*owner, *thing))
        );
        assert_eq!(culprits.owners().count(), ROOM);
    }
}
