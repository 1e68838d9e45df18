//! How new each prefix is, without looking at everything beneath it.
//!
//! Each prefix that ends with a slash is a *directory* and keeps the newest index of the keys beneath it, deleted ones
//! whose index is still known included. Any other prefix is found from the directories and keys directly beneath it.

use std::collections::BTreeMap;

use super::Key;
use crate::limits::KEY_LEVELS_INDEXED;

/// See the module's page.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct Directories(BTreeMap<Key, Directory>);

#[derive(Clone, Debug, Default)]
struct Directory {
    newest: u64,
    /// Keys beneath it whose index is known.
    keys: usize,
}

impl Directories {
    /// The index of a key rose; `new` if it had none of its own before.
    pub(in crate::registry) fn raise(&mut self, key: &Key, index: u64, new: bool) {
        for directory in directories_of(key) {
            let directory = self.0.entry(directory).or_default();
            directory.newest = directory.newest.max(index);
            directory.keys += usize::from(new);
        }
    }

    /// The index of a key is forgotten. What is newest beneath its directories is not looked for again: the caller keeps
    /// a floor for everything forgotten.
    pub(in crate::registry) fn forget(&mut self, key: &Key) {
        for name in directories_of(key) {
            if let Some(directory) = self.0.get_mut(&name) {
                directory.keys -= 1;
                if directory.keys == 0 {
                    self.0.remove(&name);
                }
            }
        }
    }

    /// The newest index beneath a prefix; 0 if none is known. `first_from` gives the first key that is not below its
    /// argument, with its index.
    pub(in crate::registry) fn newest<'a>(
        &self,
        prefix: &Key,
        first_from: impl Fn(&[u8]) -> Option<(&'a Key, u64)>,
    ) -> u64 {
        if let Some(directory) = self.0.get(prefix) {
            return directory.newest;
        }
        let mut newest = 0;
        // There is nothing beneath it, reserved keys apart.
        if prefix.is_empty() {
            return newest;
        }
        let mut from = prefix.as_bytes().to_vec();
        while let Some((key, index)) = first_from(&from)
            && key.starts_with(prefix)
        {
            let beneath = directories_of(key)
                .find(|directory| directory.starts_with(prefix))
                .and_then(|directory| Some((self.0.get(&directory)?.newest, directory)));
            match beneath {
                Some((index, directory)) => {
                    newest = newest.max(index);
                    // On to what follows all of the directory: its slash's place is taken by the next byte.
                    from = directory.as_bytes().to_vec();
                    from.pop();
                    from.push(b'/' + 1);
                }
                None => {
                    newest = newest.max(index);
                    from = key.as_bytes().to_vec();
                    from.push(0);
                }
            }
        }
        newest
    }
}

/// The directories that a key is in, from the outermost (the empty prefix) inwards. Only so many levels are told apart:
/// a key may consist of slashes.
fn directories_of(key: &Key) -> impl Iterator<Item = Key> + '_ {
    let slashes = key
        .as_bytes()
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/');
    let ends = slashes.map(|(at, _)| at + 1).take(KEY_LEVELS_INDEXED);
    // Reserved keys are not beneath the empty prefix.
    let outermost = (!key.is_reserved()).then_some(0);
    outermost.into_iter().chain(ends).map(|end| key.cut(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text.to_owned()).expect("short enough")
    }

    /// What a look at every key gives.
    fn naive(keys: &BTreeMap<Key, u64>, prefix: &Key) -> u64 {
        let beneath = keys.iter().filter(|(key, _)| key.starts_with(prefix));
        beneath.map(|(_, index)| *index).max().unwrap_or(0)
    }

    #[test]
    fn reserved_keys_are_not_beneath_the_empty_prefix() {
        let mut directories = Directories::default();
        let reserved = Key::reserved("query/1").expect("short enough");
        directories.raise(&reserved, 7, true);
        let first = |from: &[u8]| (from <= reserved.as_bytes()).then_some((&reserved, 7));
        assert_eq!(directories.newest(&Key::default(), first), 0);
        assert_eq!(directories.newest(&reserved.cut(0), first), 0);
        assert_eq!(directories.newest(&reserved.cut(1), first), 7);
        assert_eq!(directories.newest(&reserved.cut(7), first), 7);
        directories.forget(&reserved);
        assert!(directories.0.is_empty());
    }

    #[test]
    fn every_prefix_is_as_new_as_the_newest_key_beneath_it() {
        let deep = "/".repeat(KEY_LEVELS_INDEXED + 3);
        let names = [
            "a", "a/", "a/b", "a/b/c", "a/b/d", "a/bc", "a//", "a0", "ab", "b/", "b/x", "", "/", "/a", &deep,
        ];
        let mut directories = Directories::default();
        let mut keys = BTreeMap::new();
        // Every key twice, in an order in which old and new ones mix.
        for index in 1..=2 * names.len() as u64 {
            let key = key(names[(index as usize * 7) % names.len()]);
            let new = keys.insert(key.clone(), index).is_none();
            directories.raise(&key, index, new);
            for prefix in names
                .iter()
                .flat_map(|name| (0..=name.len()).map(|end| &name[..end]))
            {
                let prefix = self::key(prefix);
                let newest = directories.newest(&prefix, |from| {
                    let mut beneath = keys.iter().filter(|(key, _)| key.as_bytes() >= from);
                    beneath.next().map(|(key, index)| (key, *index))
                });
                assert_eq!(newest, naive(&keys, &prefix), "prefix {prefix:?} at {index}");
            }
        }
        for key in keys.keys() {
            directories.forget(key);
        }
        assert!(directories.0.is_empty(), "nothing is left of what was forgotten");
    }
}
