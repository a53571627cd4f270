//! What a person can do about a failure of the system beneath: a full disk, a file system that is read-only, a permission
//! that is missing. One place for these words, whoever says them: the API, the log of a start, the command line.

use std::error::Error;
use std::io;

use crate::upgrade::chain;

/// A failure in one line, with what to do about it where that is known.
pub fn told(error: &(dyn Error + 'static)) -> String {
    with(chain(error), of(error))
}

/// A sentence without an end, and what to do.
pub fn with(text: String, mend: Option<&str>) -> String {
    match mend {
        Some(mend) => format!("{text}: {mend}"),
        None => text,
    }
}

/// What to do about the first cause that the operating system named, where something of the gateway's own could not be
/// read or written.
pub fn of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match io_kind(error)? {
        io::ErrorKind::StorageFull => Some("make room on that disk, then try again"),
        io::ErrorKind::QuotaExceeded => Some("raise the quota, then try again"),
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "mount that file system writable (under systemd: ReadWritePaths= in a drop-in), then try again",
        ),
        io::ErrorKind::PermissionDenied => {
            Some("give that directory back to the user that runs the gateway")
        }
        _ => None,
    }
}

/// The same where a document could not be read.
pub fn of_document(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some("put the document there or name the path where it is"),
        io::ErrorKind::PermissionDenied => {
            Some("let the user that reads it do so, the directories above it included")
        }
        io::ErrorKind::IsADirectory => Some("name the document in that directory"),
        io::ErrorKind::InvalidData => Some("save it as UTF-8 text"),
        _ => None,
    }
}

/// The same where an address could not be listened on.
pub fn of_address(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE, which the systemd unit has, or root; or choose another"
        }
        io::ErrorKind::AddrNotAvailable => "choose an address that this host has (`ip address`)",
        io::ErrorKind::AddrInUse => {
            "free the address (`ss -ltnp` tells who has it) or choose another"
        }
        _ => "free the address or choose another",
    }
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Some(error.kind());
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

    #[test]
    fn an_address_that_may_not_be_had_is_not_one_that_somebody_has() {
        let mend = |number| of_address(io::Error::from_raw_os_error(number).kind());
        assert!(mend(13).contains("CAP_NET_BIND_SERVICE"), "{}", mend(13));
        assert!(mend(98).contains("ss -ltnp"), "{}", mend(98));
        assert!(mend(99).contains("ip address"), "{}", mend(99));
    }

    #[test]
    fn a_document_that_cannot_be_read_has_the_mend_of_a_document() {
        let mend = |number| of_document(io::Error::from_raw_os_error(number).kind());
        for (number, word) in [(2, "put the document there"), (13, "let the user"), (21, "name")] {
            assert!(mend(number).is_some_and(|mend| mend.contains(word)), "{number}");
        }
        assert_eq!(mend(5), None);
    }
}
