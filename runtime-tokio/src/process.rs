//! What the operating system allows this process.

/// Lifts the limit of open files to the highest one allowed: every connection and every parked query needs one.
/// Gives the limit in force, where there is one.
pub fn raise_open_files_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            limit.current
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_never_lowered() {
        let before = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let after = super::raise_open_files_limit();
        assert!(after.unwrap_or(u64::MAX) >= before.unwrap_or(u64::MAX));
    }
}
