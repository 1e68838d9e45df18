//! How far a data directory was known to be durable, kept beside the store.
//!
//! The store recovers by replaying its journal up to the first thing that it can't read, and takes the rest for a tail
//! that a crash tore. That is right for what was never synced, and silent loss of acknowledged writes for everything
//! else. So every batch carries a number, per keyspace, and this file names the last numbers that were synced: a store
//! that recovers less than that is corrupt.
//!
//! The file is written after each sync and not synced itself. A crash may leave an older state of it, which is still
//! a true lower bound.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use sider_core::runtime::Keyspace;

/// Number of the last batch that touched each keyspace; 0 for none.
pub(super) type Stamps = [u64; Keyspace::ALL.len()];

const MAGIC: [u8; 8] = *b"SIDERDSK";
/// Version of a data directory's layout: this file, the keyspaces and the encoding of keys in them.
const VERSION: u64 = 1;
/// Magic, version, stamps, checksum. It lies within one sector, which disks write whole.
const LENGTH: usize = 8 + 8 + 8 * Keyspace::ALL.len() + 8;

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Mark {
    /// Opens or creates the file and reads the stamps in it.
    ///
    /// # Errors
    /// `InvalidData` when it is corrupt or of another version; any error of the file system.
    pub(super) fn open(path: &Path) -> io::Result<(Mark, Stamps)> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file)
            .take(LENGTH as u64 + 1)
            .read_to_end(&mut bytes)?;
        // A power cut can leave the file empty or full of zeros: then nothing is known, which is no contradiction.
        let stamps = if bytes.iter().all(|byte| *byte == 0) {
            Stamps::default()
        } else {
            decode(&bytes)?
        };
        Ok((Mark { file }, stamps))
    }

    /// A mark that can't be written.
    #[cfg(test)]
    pub(super) fn read_only(path: &Path) -> io::Result<Mark> {
        Ok(Mark {
            file: File::open(path)?,
        })
    }

    /// Takes note that everything up to `stamps` is durable.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn write(&mut self, stamps: &Stamps) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&encode(stamps))
    }
}

fn encode(stamps: &Stamps) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&VERSION.to_be_bytes());
    for (place, stamp) in bytes[16..].chunks_exact_mut(8).zip(stamps) {
        place.copy_from_slice(&stamp.to_be_bytes());
    }
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..LENGTH - 8]);
    bytes[LENGTH - 8..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> io::Result<Stamps> {
    let corrupt = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if bytes.len() < 16 || bytes[..8] != MAGIC {
        return Err(corrupt("it is not a mark of a data directory"));
    }
    let numbers: Vec<u64> = bytes[8..]
        .chunks_exact(8)
        .map(|chunk| u64::from_be_bytes(chunk.try_into().expect("a chunk of 8 bytes")))
        .collect();
    if numbers[0] != VERSION {
        return Err(corrupt(&format!(
            "it is of version {}, and this program reads version {VERSION}",
            numbers[0]
        )));
    }
    if bytes.len() != LENGTH {
        return Err(corrupt("its length is wrong"));
    }
    if numbers[numbers.len() - 1] != xxhash_rust::xxh3::xxh3_64(&bytes[..LENGTH - 8]) {
        return Err(corrupt("its checksum is wrong"));
    }
    let mut stamps = Stamps::default();
    stamps.copy_from_slice(&numbers[1..numbers.len() - 1]);
    Ok(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("synced");
        let (mut mark, stamps) = Mark::open(&path).unwrap();
        assert_eq!(stamps, [0, 0, 0, 0]);
        mark.write(&[7, 0, 9, 1]).unwrap();
        mark.write(&[8, 0, 9, 10]).unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, [8, 0, 9, 10]);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let bytes = encode(&[1, 2, 3, 4]);
        for bit in 0..LENGTH * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            decode(&flipped).unwrap_err();
        }
        decode(&bytes[..LENGTH - 1]).unwrap_err();
        assert_eq!(decode(&bytes).unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_file_that_a_power_cut_left_empty_or_zeroed_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("synced");
        std::fs::write(&path, []).unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, [0; 4]);
        std::fs::write(&path, [0; LENGTH]).unwrap();
        assert_eq!(Mark::open(&path).unwrap().1, [0; 4]);
    }
}
