//! A process's name that cannot be mistaken for a later one's: its pid together with its start time.

use std::fs;
use std::io;

/// A process, told apart from any later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The pid in this pid namespace.
    pub pid: u32,
    /// Clock ticks between boot and start: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that runs now under `pid`.
    ///
    /// # Errors
    /// `NotFound` where there is none, `InvalidData` where `/proc` does not look as documented in proc(5).
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = start_time_of(&stat).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat")
        })?;
        Ok(Self { pid, start_time })
    }

    /// This process.
    pub fn me() -> io::Result<Self> {
        Self::of(std::process::id())
    }
}

/// Field 22; the name (field 2) may hold spaces and brackets, so fields are counted from its last bracket.
fn start_time_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(start_time_of(stat), Some(4242));
    }

    #[test]
    fn this_process_is_itself() {
        let me = ProcessId::me().unwrap();
        assert_eq!(ProcessId::of(me.pid).unwrap(), me);
    }
}
