//! A gateway that does one thing wrong, to see that the checker notices; or nothing, to see that it has no complaint.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// What it does wrong, once in each connection, behind [`SOUND`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    Nothing,
    LosesByte,
    DoublesByte,
    SwapsBytes,
    FlipsBit,
    ClosesEarly,
    Resets,
    /// An end of one half never reaches the other side.
    KeepsEnd,
    /// Nothing more comes, and nothing ends.
    Stalls,
    /// A direction's last bytes are missing, and its end is there.
    CutsTail,
    /// Something comes after a direction's last byte.
    AddsTail,
}

/// Bytes of a direction that are passed on as they are: more than a handshake of TLS and the head behind it.
const SOUND: usize = 4000;

/// Passes connections on to `backend`, with the defect in the direction to the client or the other one.
pub(crate) fn start(backend: SocketAddr, defect: Defect, to_client: bool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(backend).unwrap();
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
            }
            let (a, b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let [inward, outward] =
                if to_client { [Defect::Nothing, defect] } else { [defect, Defect::Nothing] };
            thread::spawn(move || drop(copy(client, server, inward)));
            thread::spawn(move || drop(copy(b, a, outward)));
        }
    });
    address
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut defect: Defect) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer)?;
        let mut chunk = buffer[..count].to_vec();
        if count == 0 {
            match defect {
                Defect::KeepsEnd => hold(),
                Defect::AddsTail => to.write_all(b"and")?,
                _ => {}
            }
            return to.shutdown(Shutdown::Write);
        }
        passed += count;
        // With room on both sides of the place, so that every defect fits into the chunk.
        if passed - count >= SOUND && count > 8 {
            let place = count / 2;
            match defect {
                Defect::LosesByte => drop(chunk.remove(place)),
                Defect::DoublesByte => chunk.insert(place, chunk[place]),
                // The third of two neighbours that are the same differs, or the fourth is the same by a rare chance.
                Defect::SwapsBytes if chunk[place] == chunk[place + 1] => {
                    chunk.swap(place + 1, place + 2);
                }
                Defect::SwapsBytes => chunk.swap(place, place + 1),
                Defect::FlipsBit => chunk[place] ^= 0x10,
                Defect::ClosesEarly => return to.shutdown(Shutdown::Both),
                Defect::Resets => return abort(&to),
                Defect::Stalls => hold(),
                Defect::CutsTail => {
                    to.write_all(&chunk[..place])?;
                    return to.shutdown(Shutdown::Write);
                }
                Defect::Nothing | Defect::KeepsEnd | Defect::AddsTail => {}
            }
            if !matches!(defect, Defect::KeepsEnd | Defect::AddsTail) {
                defect = Defect::Nothing;
            }
        }
        to.write_all(&chunk)?;
    }
}

/// Does no more, and holds what it has.
fn hold() -> ! {
    loop {
        thread::park_timeout(Duration::from_secs(600));
    }
}

/// A reset now, though the other direction's thread still holds the socket.
fn abort(socket: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(socket, sockopt::Linger, &linger)?;
    // Closing both halves with unread bytes around resets as well as anything.
    socket.shutdown(Shutdown::Both)
}
