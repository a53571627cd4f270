//! A page: a unix socket pair in whose queue the sockets of up to 125 tunnels wait as messages. The manager keeps the end that
//! they wait at, and is asked to keep one descriptor instead of 250: for each one more it compares all that it has.
//!
//! Whoever holds a receiving end holds what is in its queue. So a supervisor adds to a page without the manager's knowing, and
//! the next one reads it empty. What a message says: JSON, `{"listener", "version", "tunnels": [[id, index, generation]]}`,
//! with two descriptors a tunnel. Fields are only ever added.

use std::collections::HashSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
    SocketType,
};
use serde::{Deserialize, Serialize};

use crate::vault::{KeptTunnel, Key};

/// Tunnels on a page: as many as one message can carry, so that a full page is rewritten with one.
pub(super) const MOST: usize = holdfast_proto::vault::MOST_TUNNELS;
/// Longest message, bytes: a tunnel's three numbers have sixty digits at most.
const LONGEST: usize = 16 * 1024;

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    sender: OwnedFd,
    /// Those on it that the vault still holds.
    pub(super) live: HashSet<Key>,
    /// All that were ever put on it.
    pub(super) written: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    listener: SocketAddr,
    version: u32,
    tunnels: Vec<(u64, u32, u64)>,
}

// === impl Page ===

impl Page {
    /// An empty one, and the end that is to be kept.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (sender, kept) = pair?;
        Ok((Self { sender, live: HashSet::new(), written: 0 }, kept))
    }

    /// How many more fit.
    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.written)
    }

    /// Puts tunnels on it; they have room. What cannot be put there is not in `live` afterwards.
    pub(super) fn put(&mut self, tunnels: &[KeptTunnel<OwnedFd>]) -> io::Result<()> {
        for of_one_arena in tunnels.chunk_by(|a, b| a.key.place() == b.key.place()) {
            self.put_some(of_one_arena)?;
        }
        Ok(())
    }

    fn put_some(&mut self, tunnels: &[KeptTunnel<OwnedFd>]) -> io::Result<()> {
        let Some(first) = tunnels.first() else { return Ok(()) };
        let said = |one: &KeptTunnel<OwnedFd>| (one.key.id, one.index, one.generation);
        let message = Message {
            listener: first.key.listener,
            version: first.key.version,
            tunnels: tunnels.iter().map(said).collect(),
        };
        let bytes = serde_json::to_vec(&message).map_err(io::Error::from)?;
        let raw: Vec<_> = tunnels.iter().flat_map(|it| &it.legs).map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(&bytes)];
        sendmsg::<()>(self.sender.as_raw_fd(), &parts, &rights, flags, None)?;
        self.written += tunnels.len();
        self.live.extend(tunnels.iter().map(|it| it.key));
        Ok(())
    }

    /// Whether nobody keeps the other end.
    pub(super) fn is_lost(&self) -> bool {
        let mut polled = [PollFd::new(&self.sender, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let heard = poll(&mut polled, Some(&at_once)).is_ok_and(|count| count > 0);
        heard && polled.iter().any(|it| it.revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

/// Everything that waits at a kept end, and the first thing that was wrong with it: one bad message costs nothing but itself.
pub(super) fn unpack(kept: &OwnedFd) -> (Vec<KeptTunnel<OwnedFd>>, Option<io::Error>) {
    let (mut all, mut fault) = (Vec::new(), None);
    loop {
        match receive(kept) {
            Ok(None) => return (all, fault),
            Ok(Some((message, fds))) => all.extend(tunnels(message, fds)),
            Err(error) => {
                let is_its_own = error.kind() == io::ErrorKind::InvalidData;
                fault.get_or_insert(error);
                if !is_its_own {
                    return (all, fault);
                }
            }
        }
    }
}

fn tunnels(message: Message, fds: Vec<OwnedFd>) -> Vec<KeptTunnel<OwnedFd>> {
    let Message { listener, version, tunnels } = message;
    let mut fds = fds.into_iter();
    let mut pair = || Some([fds.next()?, fds.next()?]);
    let tunnels = tunnels.into_iter().map_while(|(id, index, generation)| {
        let key = Key { listener, version, id };
        Some(KeptTunnel { key, index, generation, legs: pair()? })
    });
    tunnels.collect()
}

fn receive(kept: &OwnedFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let packet = match rustix::net::recvmsg(kept.as_fd(), &mut parts, &mut control, flags) {
        Err(rustix::io::Errno::AGAIN) => return Ok(None),
        packet => packet?,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let bad = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if packet.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return bad("a message was cut short: too few descriptors are free".to_owned());
    }
    if packet.bytes == 0 {
        return Ok(None);
    }
    match serde_json::from_slice::<Message>(bytes.get(..packet.bytes).unwrap_or_default()) {
        Err(error) => bad(error.to_string()),
        Ok(message) if fds.len() != 2 * message.tunnels.len() => {
            bad(format!("{} of {} descriptors came", fds.len(), 2 * message.tunnels.len()))
        }
        Ok(message) => Ok(Some((message, fds))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::service) fn tunnel(id: u64) -> KeptTunnel<OwnedFd> {
        let (client, backend) = std::io::pipe().unwrap();
        let key = Key { listener: "127.0.0.1:80".parse().unwrap(), version: 3, id };
        KeptTunnel { key, index: 5, generation: 2, legs: [client.into(), backend.into()] }
    }

    #[test]
    fn what_was_put_on_a_page_outlives_who_has_put_it_there() {
        let (mut page, kept) = Page::new().unwrap();
        let mut ids = Vec::new();
        // One by one, as they open, until it is full.
        while page.room() > 0 {
            ids.push(ids.len() as u64);
            page.put(&[tunnel(ids.len() as u64 - 1)]).unwrap();
        }
        assert_eq!(ids.len(), MOST);
        drop(page);
        let (back, fault) = unpack(&kept);
        assert!(fault.is_none(), "{fault:?}");
        assert_eq!(back.iter().map(|it| it.key.id).collect::<Vec<_>>(), ids);
        let mut back = back.into_iter();
        let KeptTunnel { index, generation, legs: [client, backend], .. } = back.next().unwrap();
        assert_eq!((index, generation), (5, 2));
        // And the legs are those: what goes into one comes out of the other.
        io::Write::write_all(&mut std::fs::File::from(backend), b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut std::fs::File::from(client), &mut byte).unwrap();
        assert_eq!(byte, *b"x");
        assert!(unpack(&kept).0.is_empty());
    }

    #[test]
    fn tunnels_of_two_listeners_share_a_page() {
        let (mut page, kept) = Page::new().unwrap();
        let mut other = tunnel(9);
        other.key.listener = "[::1]:80".parse().unwrap();
        page.put(&[tunnel(1), tunnel(2), other]).unwrap();
        let (back, _) = unpack(&kept);
        let keys: Vec<_> = back.iter().map(|it| (it.key.listener.port(), it.key.id)).collect();
        assert_eq!(keys, [(80, 1), (80, 2), (80, 9)]);
        assert!(back.last().unwrap().key.listener.is_ipv6());
    }

    #[test]
    fn a_page_that_nobody_keeps_is_seen_to_be_lost() {
        let (mut page, kept) = Page::new().unwrap();
        assert!(!page.is_lost());
        drop(kept);
        assert!(page.is_lost());
        assert!(page.put(&[tunnel(1)]).is_err());
    }

    #[test]
    fn rubbish_on_a_page_costs_nothing_but_itself() {
        let (mut page, kept) = Page::new().unwrap();
        page.put(&[tunnel(1)]).unwrap();
        let unfit = br#"{"listener": "127.0.0.1:80", "version": 3, "tunnels": [[7, 5, 2]]}"#;
        for rubbish in [&b"?"[..], b"{", unfit] {
            nix::sys::socket::send(page.sender.as_raw_fd(), rubbish, MsgFlags::empty()).unwrap();
        }
        page.put(&[tunnel(2)]).unwrap();
        let (back, fault) = unpack(&kept);
        assert_eq!(back.iter().map(|it| it.key.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(fault.unwrap().kind(), io::ErrorKind::InvalidData);
        let (file, _) = std::io::pipe().unwrap();
        let (back, fault) = unpack(&file.into());
        assert!(back.is_empty() && fault.is_some());
    }
}
