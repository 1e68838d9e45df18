//! What befalls a snapshot file between saving and restoring it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sider_core::registry::{Command, KeyWrite, Operation, Snapshot, SnapshotWriter};
use xxhash_rust::xxh3::xxh3_64;

use crate::keys::key;

/// What happened to a file between saving and restoring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// Nothing.
    None,
    /// Its end is missing, from so many thousandths of its length on.
    CutOff(u16),
    /// One bit is another, at so many thousandths of its length.
    Flipped(u16),
    /// It is sound, and of a cluster that went on and came back to the same: its index is higher by so much. It is in
    /// small blocks, as another version may write it.
    Ahead(u16),
}

impl Damage {
    /// Whether the file can be restored.
    pub fn is_sound(self) -> bool {
        matches!(self, Damage::None | Damage::Ahead(_))
    }

    /// A file with this damage.
    pub fn done_to(self, file: &[u8]) -> Vec<u8> {
        let at = |thousandths: u16| file.len() * usize::from(thousandths) / 1_000;
        let mut file = file.to_vec();
        match self {
            Damage::None => {}
            Damage::CutOff(place) => file.truncate(at(place)),
            Damage::Flipped(place) => {
                if let Some(byte) = file.get_mut(at(place)) {
                    *byte ^= 1 << (place % 8);
                }
            }
            Damage::Ahead(by) => return gone_on(file, by),
        }
        file
    }
}

/// The file of a cluster that has put a key so many times, the last time to delete it.
fn gone_on(file: Vec<u8>, by: u16) -> Vec<u8> {
    let file = Bytes::from(file);
    let Ok(snapshot) = Snapshot::parse(&file) else {
        return file.to_vec();
    };
    let mut registry = snapshot.registry().clone();
    let key = key("gone-on");
    for nth in 1..=by {
        let write = KeyWrite {
            key: key.clone(),
            value: Bytes::from(nth.to_string()),
            flags: 0,
        };
        let operation = match nth == by {
            true => Operation::DeleteKey(key.clone()),
            false => Operation::SetKey(write),
        };
        registry.apply(&Command::Transact(vec![operation]));
    }
    let file: Vec<u8> = SnapshotWriter::new(&registry, &snapshot.program)
        .flatten()
        .collect();
    in_small_blocks(&file)
}

/// The same file in blocks of about a kilobyte, so that it is laid down in several parts.
fn in_small_blocks(file: &[u8]) -> Vec<u8> {
    const BLOCK_BYTES: usize = 1_000;
    const TAIL_BYTES: usize = 8 + 16;
    let length = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(0, |it| u32::from_be_bytes(*it) as usize)
    };
    let begin = file.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (head, mut rest) = file.split_at(begin);
    let mut packed = Vec::new();
    while let end @ 1.. = length(rest) {
        packed.extend_from_slice(&rest[4..4 + end]);
        rest = &rest[4 + end..];
    }
    let mut new = head.to_vec();
    let mut block = Vec::new();
    let mut rows = packed.as_slice();
    while !rows.is_empty() {
        let key = 4 + length(rows);
        let (row, behind) = rows.split_at(key + 4 + length(&rows[key..]));
        block.extend_from_slice(row);
        rows = behind;
        if block.len() >= BLOCK_BYTES || rows.is_empty() {
            new.extend(u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes());
            new.append(&mut block);
        }
    }
    new.extend_from_slice(&rest[..4 + TAIL_BYTES]);
    let checksum = xxh3_64(&new);
    new.extend(checksum.to_be_bytes());
    new
}

#[cfg(test)]
mod tests {
    use sider_core::registry::Registry;

    use super::*;
    use crate::content::StateSeen;

    #[test]
    fn a_file_that_is_ahead_holds_the_same() {
        let mut registry = Registry::default();
        let write = KeyWrite {
            key: key("k"),
            value: Bytes::from("v"),
            flags: 3,
        };
        registry.apply(&Command::Transact(vec![Operation::SetKey(write)]));
        let file: Vec<u8> = SnapshotWriter::new(&registry, "0").flatten().collect();
        let parse = |file: Vec<u8>| StateSeen::parse(&Bytes::from(file)).expect("a sound file");
        let ahead = Damage::Ahead(99).done_to(&file);
        let parts = Snapshot::parse(&Bytes::from(ahead.clone())).map(|it| it.parts().len());
        assert!(parts.is_ok_and(|parts| parts > 2));
        let (here, ahead) = (parse(file.clone()), parse(ahead));
        assert_eq!(ahead.index, here.index + 99);
        assert_eq!(
            StateSeen {
                index: here.index,
                ..ahead
            },
            here
        );
        assert!(Damage::Ahead(9).is_sound() && !Damage::CutOff(9).is_sound());
    }
}
