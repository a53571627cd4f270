//! Records that others have printed: RFC 8448 section 3, a session with AES-128-GCM.

use crate::tls::keys::{Protocol, Secret, Suite, Version};
use crate::tls::record::{Cipher, Kind, key_of};

const PROTOCOL: Protocol = Protocol { version: Version::Tls13, suite: Suite::Aes128Gcm };

const CLIENT: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn secret(text: &str) -> Secret {
    Secret::new(&hex(text)).unwrap()
}

fn check(secret_text: &str, seq: u64, kind: Kind, plaintext: &[u8], record: &str) {
    let cipher = Cipher::new(PROTOCOL, &secret(secret_text)).unwrap();
    let mut sealed = Vec::new();
    cipher.seal(seq, kind, plaintext, &mut sealed).unwrap();
    assert_eq!(sealed, hex(record));
    let opened = cipher.open(seq, &mut sealed).unwrap();
    assert_eq!((opened.kind, opened.plaintext), (kind, plaintext));
}

#[test]
fn keys_are_those_of_the_rfc() {
    let keys = key_of(PROTOCOL, &secret(CLIENT)).unwrap();
    assert_eq!(keys.key(), hex("17422dda596ed5d9acd890e3c63f5051"));
    assert_eq!(keys.iv().to_vec(), hex("5b78923dee08579033e523d9"));
    let keys = key_of(PROTOCOL, &secret(SERVER)).unwrap();
    assert_eq!(keys.key(), hex("9f02283b6c9c07efc26bb9f2ac92e356"));
    assert_eq!(keys.iv().to_vec(), hex("cf782b88dd83549aadf1e984"));
}

#[test]
fn records_are_those_of_the_rfc() {
    let data: Vec<u8> = (0..50).collect();
    check(
        CLIENT,
        0,
        Kind::Data,
        &data,
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a\
         20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
    );
    // The server's first record is a ticket.
    check(
        SERVER,
        1,
        Kind::Data,
        &data,
        "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb\
         501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d",
    );
    let close = super::super::close_notify();
    check(CLIENT, 1, Kind::Alert, &close, "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
    check(SERVER, 2, Kind::Alert, &close, "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9");
}
