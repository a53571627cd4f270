//! The access log as a document means it. What a line of it holds is the workers' matter.

use super::MILLION;

/// Where a line for each request goes, and for how many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where.
    pub destination: AccessLogDestination,
    /// Of so many requests in a million.
    pub sampled_per_million: u32,
}

/// Where lines of the access log go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogDestination {
    /// There are none.
    #[default]
    Off,
    /// To the service's standard output.
    Stdout,
    /// Into a file, which may be a FIFO.
    File {
        /// Absolute.
        path: String,
    },
}

// === impl AccessLog ===

impl Default for AccessLog {
    fn default() -> Self {
        Self { destination: AccessLogDestination::Off, sampled_per_million: MILLION }
    }
}

// === impl AccessLogDestination ===

impl AccessLogDestination {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Stdout => "stdout",
            Self::File { .. } => "file",
        }
    }
}
