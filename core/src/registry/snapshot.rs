//! A state as a file: what backups are kept in.
//!
//! ```text
//! sider-snapshot 1 index=4711 program=0.1.0\n    the format's version, the registry's index, who wrote it
//! length  rows                                   blocks: 4 bytes, big-endian, and so many bytes of packed rows
//! 0                                              no more blocks
//! rows  digest  checksum                         8, 16 and 8 bytes, big-endian
//! ```
//! A packed row is a key and a value, each behind its length in 4 bytes. The digest is that of the rows; the checksum
//! (xxh3) covers everything before it. Both must agree, and the rows must make a sound registry, before any of it is
//! believed: a file that was cut off, spoilt or written by something else is told apart from an empty one.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::{Registry, RowError, rows::row_hash};
use crate::limits;

/// The first word of a file.
const MAGIC: &str = "sider-snapshot";
/// The version of the format that is written; older ones are read. Rows have a version of their own.
const VERSION: u8 = 1;
/// Bytes of the first line, its end included.
const HEAD_BYTES_MAX: usize = 256;
/// Bytes behind the blocks.
const TAIL_BYTES: usize = 8 + 16 + 8;

/// Why a file is no snapshot that can be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin like one.
    #[error("it is not a snapshot file: it does not begin with {MAGIC:?}")]
    Foreign,
    /// It was written by a newer version.
    #[error(
        "it has format version {0}; this program reads up to {VERSION}: use the version that wrote it, or a newer one"
    )]
    UnknownVersion(String),
    /// It ends too soon.
    #[error("it is cut off")]
    CutOff,
    /// Its bytes are not those that were written.
    #[error("it is spoilt: {0}")]
    Spoilt(String),
    /// Its rows make no registry that this program knows.
    #[error("it can't be restored: {0}")]
    Rows(#[from] RowError),
}

/// A complete file that was found sound.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The version of the program that wrote it.
    pub program: String,
    /// Its rows.
    pub rows: u64,
    /// The digest of its rows.
    pub digest: u128,
    blocks: Vec<Bytes>,
    registry: Arc<Registry>,
}

impl Snapshot {
    /// Reads a whole file. Nothing is believed before everything is checked.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(file: &Bytes) -> Result<Snapshot, SnapshotError> {
        let (head, mut rest) = split_head(file)?;
        let mut blocks = Vec::new();
        loop {
            let length = rest.try_get_u32().map_err(|_| SnapshotError::CutOff)? as usize;
            if length == 0 {
                break;
            }
            if length > rest.len() {
                return Err(SnapshotError::CutOff);
            }
            blocks.push(rest.split_to(length));
        }
        if rest.len() < TAIL_BYTES {
            return Err(SnapshotError::CutOff);
        }
        if rest.len() > TAIL_BYTES {
            let reason = format!("{} bytes follow its end", rest.len() - TAIL_BYTES);
            return Err(SnapshotError::Spoilt(reason));
        }
        let (rows, digest, checksum) = (rest.get_u64(), rest.get_u128(), rest.get_u64());
        let mut hasher = Xxh3::new();
        hasher.update(&file[..file.len() - 8]);
        if hasher.digest() != checksum {
            return Err(SnapshotError::Spoilt("its checksum does not match".into()));
        }
        let registry = registry_of(blocks.iter().cloned())?;
        if (registry.index(), registry.digest()) != (head.index, digest) {
            let reason = "its rows are not those that it announces";
            return Err(SnapshotError::Spoilt(reason.into()));
        }
        Ok(Snapshot {
            program: head.program,
            rows,
            digest,
            blocks,
            registry: Arc::new(registry),
        })
    }

    /// The state in it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its packed rows, in parts of about [`limits::SNAPSHOT_CHUNK_BYTES`].
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.blocks.iter()
    }
}

/// The registry of these packed rows, as a file may hold it: without what is about the cluster that it came from.
///
/// # Errors
/// They are not packed rows, or make no sound registry.
pub(super) fn registry_of(blocks: impl Iterator<Item = Bytes>) -> Result<Registry, SnapshotError> {
    let mut rows = Vec::new();
    for block in blocks {
        let unpacked = unpack(block).ok_or_else(|| SnapshotError::Spoilt("its rows are malformed".into()))?;
        rows.extend(unpacked);
    }
    let registry = Registry::from_rows(rows)?;
    if registry.version > 0 || !registry.staged.is_empty() {
        return Err(SnapshotError::Spoilt(
            "it holds rows that are no part of a snapshot".into(),
        ));
    }
    Ok(registry)
}

struct Head {
    index: u64,
    program: String,
}

fn split_head(file: &Bytes) -> Result<(Head, Bytes), SnapshotError> {
    let begins = file.len().min(MAGIC.len());
    if file[..begins] != MAGIC.as_bytes()[..begins] || file.is_empty() {
        return Err(SnapshotError::Foreign);
    }
    let end = file.iter().take(HEAD_BYTES_MAX).position(|byte| *byte == b'\n');
    let Some(end) = end else {
        return Err(match file.len() < HEAD_BYTES_MAX {
            true => SnapshotError::CutOff,
            false => SnapshotError::Foreign,
        });
    };
    let line = std::str::from_utf8(&file[..end]).map_err(|_| SnapshotError::Foreign)?;
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(SnapshotError::Foreign);
    }
    let version = words.next().unwrap_or_default();
    match version.parse::<u8>() {
        Ok(1..=VERSION) => {}
        Ok(0) | Err(_) => return Err(SnapshotError::Foreign),
        Ok(_) => return Err(SnapshotError::UnknownVersion(version.to_owned())),
    }
    let mut index = None;
    let mut program = String::new();
    for word in words {
        match word.split_once('=') {
            Some(("index", value)) => index = value.parse().ok(),
            Some(("program", value)) => value.clone_into(&mut program),
            _ => {}
        }
    }
    let index = index.ok_or_else(|| SnapshotError::Spoilt("its first line names no index".into()))?;
    Ok((Head { index, program }, file.slice(end + 1..)))
}

/// Writes a file piece by piece, in bounded memory beside the registry itself.
pub struct SnapshotWriter<'a> {
    rows: Box<dyn Iterator<Item = (Bytes, Bytes)> + Send + 'a>,
    head: Option<Bytes>,
    held_back: Option<(Bytes, Bytes)>,
    hasher: Xxh3,
    count: u64,
    digest: u128,
    finished: bool,
}

impl<'a> SnapshotWriter<'a> {
    /// Writes the state of `registry`, in the name of this version of the program.
    pub fn new(registry: &'a Registry, program: &str) -> Self {
        let index = registry.index();
        SnapshotWriter {
            rows: Box::new(registry.snapshot_rows()),
            head: Some(Bytes::from(format!(
                "{MAGIC} {VERSION} index={index} program={program}\n"
            ))),
            held_back: None,
            hasher: Xxh3::new(),
            count: 0,
            digest: 0,
            finished: false,
        }
    }

    fn block(&mut self) -> BytesMut {
        let mut block = BytesMut::new();
        block.put_u32(0);
        while let Some((key, value)) = self.held_back.take().or_else(|| self.rows.next()) {
            let more = packed_len(&key, &value);
            if block.len() > 4 && block.len() + more > limits::SNAPSHOT_CHUNK_BYTES {
                self.held_back = Some((key, value));
                break;
            }
            self.count += 1;
            self.digest = self.digest.wrapping_add(row_hash(&key, &value));
            pack(&mut block, &key, &value);
        }
        let length = u32::try_from(block.len() - 4).expect("a block is far smaller than 4 GiB");
        block[..4].copy_from_slice(&length.to_be_bytes());
        block
    }
}

impl Iterator for SnapshotWriter<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.finished {
            return None;
        }
        if let Some(head) = self.head.take() {
            self.hasher.update(&head);
            return Some(head);
        }
        let mut piece = self.block();
        if piece.len() == 4 {
            // An empty block ends them.
            self.finished = true;
            piece.put_u64(self.count);
            piece.put_u128(self.digest);
        }
        self.hasher.update(&piece);
        if self.finished {
            piece.put_u64(self.hasher.digest());
        }
        Some(piece.freeze())
    }
}

/// Appends a row: key and value, each behind its length in 4 bytes.
pub(crate) fn pack(packed: &mut BytesMut, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        packed.put_u32(u32::try_from(part.len()).expect("a row is far smaller than 4 GiB"));
        packed.put_slice(part);
    }
}

/// Bytes that a row takes when packed.
pub(crate) fn packed_len(key: &[u8], value: &[u8]) -> usize {
    4 + key.len() + 4 + value.len()
}

/// The rows that were packed; `None` if these are not packed rows.
pub(crate) fn unpack(mut packed: Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    fn part(packed: &mut Bytes) -> Option<Bytes> {
        let length = packed.try_get_u32().ok()? as usize;
        (length <= packed.len()).then(|| packed.split_to(length))
    }

    let mut rows = Vec::new();
    while !packed.is_empty() {
        rows.push((part(&mut packed)?, part(&mut packed)?));
    }
    Some(rows)
}
