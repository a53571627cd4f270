//! The record layer in the receiver's place, judged record by record.
//!
//! It goes on as a tunnel's step does (`worker/src/tunnel/steps/take.rs`), without the sockets.

use crate::allocations;
use crate::headers;
use crate::messages::Messages;
use crate::script::Script;
use crate::tls::keys::{Secret, Version};
use crate::tls::record::{
    Cipher, Framed, Kind, Message, Skip, Violation, frame, next_secret, read,
};

/// What our end has made of a script's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) data: Vec<u8>,
    pub(crate) end: End,
    /// The refusal came before the record was whole, or could have.
    pub(crate) by_header: bool,
    /// A handshake message was passed over: a ticket, or a wish to shake hands anew.
    pub(crate) passed_over: bool,
    /// A part of one is still to come.
    pub(crate) skipping: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Waiting,
    Closed,
    Refused(Violation),
    Alert(u8),
}

struct Receiver<'a> {
    script: &'a Script,
    secret: Secret,
    cipher: Cipher,
    generation: u32,
    seq: u64,
    skip: Skip,
    messages: Messages,
    outcome: Outcome,
}

/// Receives a script's bytes in pieces of these lengths, again and again; of no lengths: at once.
pub(crate) fn receive(script: &Script, cuts: &[u8]) -> Outcome {
    let kit = script.kit;
    let secret = Secret::new(&kit.secret).unwrap();
    let mut receiver = Receiver {
        script,
        cipher: Cipher::new(kit.protocol, &secret).unwrap(),
        secret,
        generation: 0,
        seq: script.seq,
        skip: Skip::default(),
        messages: Messages::new(kit.protocol, kit.role),
        outcome: Outcome {
            data: Vec::new(),
            end: End::Waiting,
            by_header: false,
            passed_over: false,
            skipping: false,
        },
    };
    let (mut from, mut to) = (0, 0);
    let mut lengths = cuts.iter().cycle();
    while to < script.wire.len() && receiver.outcome.end == End::Waiting {
        // An eighth of the longest record at most, so that few pieces make one.
        to = lengths.next().map_or(script.wire.len(), |cut| to + 1 + usize::from(*cut) * 8);
        to = to.min(script.wire.len());
        from += receiver.take(&script.wire[from..to]);
    }
    receiver.outcome.skipping = u32::from(receiver.skip) > 0;
    receiver.outcome
}

// === impl Receiver ===

impl Receiver<'_> {
    /// Opens what is whole at the front; answers how much that was.
    fn take(&mut self, arrived: &[u8]) -> usize {
        let protocol = self.script.kit.protocol;
        let mut from = 0;
        while self.outcome.end == End::Waiting {
            let waiting = &arrived[from..];
            let framed = allocations::none(|| frame(protocol, waiting));
            headers::judge(protocol, waiting, framed);
            match framed {
                Ok(Framed::Whole { len }) => {
                    self.open(&waiting[..len]);
                    from += len;
                }
                Ok(Framed::Partial { .. }) => return from,
                Err(violation) => {
                    self.outcome.end = End::Refused(violation);
                    self.outcome.by_header = true;
                }
            }
        }
        from
    }

    fn open(&mut self, record: &[u8]) {
        let kit = self.script.kit;
        let due = (self.generation, self.seq);
        let expected = self.script.book.verdict(due, record);
        let mut bytes = record.to_vec();
        let opened = allocations::none(|| self.cipher.open(self.seq, &mut bytes));
        let seen = opened.map(|opened| (code(opened.kind), opened.plaintext.to_vec()));
        assert!(
            seen == expected,
            "opened as {:?}, not as {:?}",
            lengths(&seen),
            lengths(&expected),
        );
        let opened = match opened {
            Ok(opened) => opened,
            Err(violation) => return self.outcome.end = End::Refused(violation),
        };
        let message = allocations::none(|| read(kit.protocol, kit.role, &opened, &mut self.skip));
        let expected = self.messages.read(code(opened.kind), opened.plaintext);
        assert!(message == expected, "read as {message:?}, not as {expected:?}");
        if message.is_ok() {
            assert!(u32::from(self.skip) == self.messages.left, "another rest is to be skipped");
        }
        // The last number of all is never reached by a session that lives.
        self.seq = self.seq.saturating_add(1);
        match message {
            Ok(Message::Data) => self.outcome.data.extend_from_slice(opened.plaintext),
            Ok(Message::Nothing) => self.outcome.passed_over |= opened.kind == Kind::Handshake,
            Ok(Message::KeyUpdate { .. }) => self.turn(),
            Ok(Message::Closed) => self.outcome.end = End::Closed,
            Ok(Message::PeerAlert(description)) => self.outcome.end = End::Alert(description),
            Err(violation) => self.outcome.end = End::Refused(violation),
        }
    }

    fn turn(&mut self) {
        let protocol = self.script.kit.protocol;
        assert!(protocol.version == Version::Tls13, "TLS 1.2 has no key update");
        self.secret = next_secret(protocol, &self.secret).unwrap();
        self.cipher = Cipher::new(protocol, &self.secret).unwrap();
        self.generation += 1;
        self.seq = 0;
    }
}

fn lengths(read: &Result<(u8, Vec<u8>), Violation>) -> Result<(u8, usize), Violation> {
    read.as_ref().map(|(kind, plaintext)| (*kind, plaintext.len())).map_err(|violation| *violation)
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Alert => 21,
        Kind::Handshake => 22,
        Kind::Data => 23,
    }
}
