//! What an opened record may say, decided once more and without a line of the code that is judged.

use crate::tls::keys::{Protocol, Role, Version};
use crate::tls::record::{Message, Violation};

/// RFC 8446 section 4.6.1: lifetime, age, a nonce of up to 255 bytes, a ticket of 1 to 65,535, extensions of up to 65,534.
const TICKET: (u32, u32) = (4 + 4 + 1 + 2 + 1 + 2, 4 + 4 + (1 + 255) + (2 + 65_535) + (2 + 65_534));

/// What was read of one session.
pub(crate) struct Messages {
    protocol: Protocol,
    role: Role,
    /// Bytes of a ticket that are still to come.
    pub(crate) left: u32,
}

// === impl Messages ===

impl Messages {
    pub(crate) fn new(protocol: Protocol, role: Role) -> Self {
        Self { protocol, role, left: 0 }
    }

    /// What a record of that kind and plaintext means.
    pub(crate) fn read(&mut self, kind: u8, plaintext: &[u8]) -> Result<Message, Violation> {
        let is_tls13 = self.protocol.version == Version::Tls13;
        match kind {
            21 | 23 if self.left > 0 => Err(Violation::Interleaved),
            23 => Ok(Message::Data),
            _ if plaintext.is_empty() => Err(Violation::Empty),
            21 => alert(is_tls13, plaintext),
            _ if is_tls13 => self.handshake(plaintext),
            _ => self.hello(plaintext),
        }
    }

    fn handshake(&mut self, record: &[u8]) -> Result<Message, Violation> {
        let mut at = 0;
        loop {
            while self.left > 0 && at < record.len() {
                self.left -= 1;
                at += 1;
            }
            let (kind, length, body) = match (&record[at..], self.role) {
                ([], _) => return Ok(Message::Nothing),
                ([24, a, b, c, body @ ..], _) => (24, [*a, *b, *c], body),
                ([4, a, b, c, body @ ..], Role::Client) => (4, [*a, *b, *c], body),
                ([24, ..], _) | ([4, ..], Role::Client) => return Err(Violation::CutHeader),
                ([other, ..], _) => return Err(Violation::Handshake(*other)),
            };
            let length = length.iter().fold(0, |sum, byte| sum * 256 + u32::from(*byte));
            if kind == 24 {
                return match (length, body) {
                    (1, [request @ 0..=1]) => Ok(Message::KeyUpdate { requested: *request == 1 }),
                    (1, [other]) => Err(Violation::UpdateRequest(*other)),
                    (1, [_, _, ..]) => Err(Violation::BehindKeyUpdate),
                    _ => Err(Violation::MalformedHandshake(24)),
                };
            }
            if length < TICKET.0 || length > TICKET.1 {
                return Err(Violation::MalformedHandshake(4));
            }
            self.left = length;
            at += 4;
        }
    }

    /// RFC 5246 section 7.4.1.1, and nothing else.
    fn hello(&self, record: &[u8]) -> Result<Message, Violation> {
        for message in record.chunks(4) {
            match (message, self.role) {
                ([0, 0, 0, 0], Role::Client) => {}
                ([0, _, _, _], Role::Client) => return Err(Violation::MalformedHandshake(0)),
                ([0, ..], Role::Client) => return Err(Violation::CutHeader),
                ([1, ..], Role::Server) => return Err(Violation::Renegotiation),
                _ => return Err(Violation::Handshake(message[0])),
            }
        }
        Ok(Message::Nothing)
    }
}

fn alert(is_tls13: bool, alert: &[u8]) -> Result<Message, Violation> {
    match (alert, is_tls13) {
        ([_, 0], _) => Ok(Message::Closed),
        ([_, 90], true) | ([1, _], false) => Ok(Message::Nothing),
        ([_, why], true) | ([2, why], false) => Ok(Message::PeerAlert(*why)),
        ([level, _], false) => Err(Violation::AlertLevel(*level)),
        _ => Err(Violation::MalformedAlert),
    }
}
