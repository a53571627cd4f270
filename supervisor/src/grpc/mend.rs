//! What an operator can do about a failure of the system beneath: a full disk, a file system that is read-only.

use std::error::Error;
use std::io;

use crate::upgrade::chain;

/// A failure in one line, with what to do about it where that is known.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let text = chain(error);
    match mend(error) {
        Some(mend) => format!("{text}: {mend}"),
        None => text,
    }
}

fn mend(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::StorageFull => Some("make room on that disk, then try again"),
                io::ErrorKind::QuotaExceeded => Some("raise the quota, then try again"),
                io::ErrorKind::ReadOnlyFilesystem => {
                    Some("mount that file system writable, then try again")
                }
                io::ErrorKind::PermissionDenied => {
                    Some("give that directory back to the user that runs the gateway")
                }
                _ => None,
            };
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write the ledger")]
    struct Failed(#[source] io::Error);

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let text = told(&Failed(io::Error::from_raw_os_error(28)));
        assert!(text.starts_with("cannot write the ledger: No space left"), "{text}");
        assert!(text.ends_with("make room on that disk, then try again"), "{text}");
    }

    #[test]
    fn what_nobody_knows_a_mend_for_stays_as_it_is() {
        let error = Failed(io::Error::other("odd"));
        assert_eq!(told(&error), "cannot write the ledger: odd");
    }
}
