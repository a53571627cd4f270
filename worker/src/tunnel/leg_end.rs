//! How each leg of a tunnel had ended when the tunnel did, as the kernel or its TLS showed it. Read off the tunnel's marks,
//! which outlive the process; what was not seen is `open`, and nothing is concluded from anything else.

use super::Cause;
use super::arena::{Cell, ends};
use super::flow::fin_mark;
use super::leg::Side;

/// What a leg's peer has done with its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LegEnd {
    /// It had ended nothing: the gateway closed this leg.
    Open,
    /// It ended its side in order: a FIN, over TLS after a `close_notify`.
    Fin,
    /// A FIN over TLS without a `close_notify`: the rest may be missing.
    Truncated,
    /// A fatal alert of its TLS.
    Alert,
    /// A reset.
    Reset,
    /// It broke the rules of TLS.
    ProtocolError,
    /// It no longer answered the kernel.
    NoAnswer,
}

// === impl LegEnd ===

impl LegEnd {
    /// The client's and the backend's, of a tunnel that ends with that cause.
    pub(super) fn both(cell: &Cell, cause: Cause) -> [Self; 2] {
        Side::BOTH.map(|side| Self::of(cell, side, cause))
    }

    fn of(cell: &Cell, side: Side, cause: Cause) -> Self {
        let Marks { alert, broke, reset, truncated, first } = Marks::of(side);
        if cell.has_ends(alert) {
            Self::Alert
        } else if cell.has_ends(broke) {
            match cause {
                Cause::ProtocolError => Self::ProtocolError,
                Cause::PeerLost => Self::NoAnswer,
                // A call of ours failed: that says nothing of the peer.
                _ => Self::Open,
            }
        } else if cell.has_ends(reset) {
            Self::Reset
        } else if cell.has_ends(truncated) {
            Self::Truncated
        } else if cell.has_ends(first) || cell.has_ends(fin_mark(side.other())) {
            Self::Fin
        } else {
            Self::Open
        }
    }

    /// The word that logs use.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Fin => "fin",
            Self::Truncated => "truncated",
            Self::Alert => "alert",
            Self::Reset => "reset",
            Self::ProtocolError => "protocol_error",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// The flags about one leg.
#[derive(Debug, Clone, Copy)]
struct Marks {
    alert: u64,
    broke: u64,
    reset: u64,
    truncated: u64,
    first: u64,
}

// === impl Marks ===

impl Marks {
    const fn of(side: Side) -> Self {
        match side {
            Side::Client => Self {
                alert: ends::CLIENT_ALERT,
                broke: ends::CLIENT_BROKE,
                reset: ends::CLIENT_RESET,
                truncated: ends::CLIENT_TRUNCATED,
                first: ends::FIRST_END_CLIENT,
            },
            Side::Backend => Self {
                alert: ends::BACKEND_ALERT,
                broke: ends::BACKEND_BROKE,
                reset: ends::BACKEND_RESET,
                truncated: ends::BACKEND_TRUNCATED,
                first: ends::FIRST_END_BACKEND,
            },
        }
    }
}

/// Says that a leg's peer sent a fatal alert.
pub(super) const fn alert_mark(side: Side) -> u64 {
    Marks::of(side).alert
}

/// Says that a leg failed otherwise than by its peer's reset.
pub(super) const fn broke_mark(side: Side) -> u64 {
    Marks::of(side).broke
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::tunnel::arena::Arena;
    use crate::tunnel::slot::Slot;

    fn words(marks: u64, cause: Cause) -> [&'static str; 2] {
        let arena = std::sync::Arc::new(Arena::create().unwrap());
        let slot = Slot::claim(&arena, 1).unwrap();
        slot.set_ends(marks);
        LegEnd::both(&slot, cause).map(LegEnd::as_str)
    }

    #[test]
    fn the_document_explains_every_word_and_no_other() {
        let text = include_str!("../../../docs/tunnel-ends.md");
        let section = |title: &str| {
            let (_, rest) = text.split_once(title).unwrap();
            let rows = rest.split("\n## ").next().unwrap_or_default().lines();
            let words = rows.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(section("## Causes"), Cause::ALL.map(Cause::as_str));
        let ends = [
            LegEnd::Open,
            LegEnd::Fin,
            LegEnd::Truncated,
            LegEnd::Reset,
            LegEnd::Alert,
            LegEnd::ProtocolError,
            LegEnd::NoAnswer,
        ];
        assert_eq!(section("## What was seen of a leg"), ends.map(LegEnd::as_str));
    }

    #[test]
    fn each_leg_is_told_as_it_was_seen() {
        let both = ends::FIRST_END_CLIENT | ends::BACKEND_FIN_SENT | ends::CLIENT_FIN_SENT;
        for (marks, cause, expected) in [
            (0, Cause::Idle, ["open", "open"]),
            (ends::FIRST_END_CLIENT, Cause::Client, ["fin", "open"]),
            (ends::FIRST_END_BACKEND, Cause::Backend, ["open", "fin"]),
            (both, Cause::Client, ["fin", "fin"]),
            (ends::CLIENT_RESET, Cause::Client, ["reset", "open"]),
            (both | ends::BACKEND_RESET, Cause::Client, ["fin", "reset"]),
            (ends::CLIENT_RESET | ends::CLIENT_ALERT, Cause::Client, ["alert", "open"]),
            (
                ends::FIRST_END_BACKEND | ends::BACKEND_TRUNCATED,
                Cause::Truncated,
                ["open", "truncated"],
            ),
            (
                ends::CLIENT_RESET | ends::CLIENT_BROKE,
                Cause::ProtocolError,
                ["protocol_error", "open"],
            ),
            (ends::BACKEND_RESET | ends::BACKEND_BROKE, Cause::PeerLost, ["open", "no_answer"]),
            (ends::BACKEND_RESET | ends::BACKEND_BROKE, Cause::Lost, ["open", "open"]),
        ] {
            assert_eq!(words(marks, cause), expected, "{marks:#x} {cause:?}");
        }
    }
}
