//! Errors in one line that names the data directory and the way out.

use std::{io, path::Path};

/// One line that says what is wrong with the data directory and what to do.
pub(super) fn explain(path: &Path, error: fjall::Error) -> io::Error {
    use fjall::LsmError;
    let error = match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => error,
        fjall::Error::Locked => {
            return io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("data directory {} is in use by another process", path.display()),
            );
        }
        fjall::Error::Poisoned => io::Error::other("the store stopped after an earlier error"),
        // Everything else that opening, reading and writing can give is about the content of a file.
        error => return corrupt(path, &format!("{error:?}")),
    };
    let way_out = match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            return corrupt(path, &error.to_string());
        }
        // The latter: what marks a store as such is gone, and the rest of it is in the way of a new one.
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => {
            return corrupt(path, "a file of its store is missing");
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space, then start again",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make it writable or choose another one"
        }
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("data directory {}: {error}{way_out}", path.display()),
    )
}

/// The content of the data directory is not what was written there.
pub(super) fn corrupt(path: &Path, what: &str) -> io::Error {
    // The texts of others may hold line breaks; an error is one line.
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "data directory {} is corrupt: {what}; restore it from a backup, or move it away, remove this \
             server from its cluster and add it again",
            path.display()
        ),
    )
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else {
        "the store panicked".to_owned()
    }
}
