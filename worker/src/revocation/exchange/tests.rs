//! Responders that do what they should not, over loopback.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use http::HeaderValue;
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn responder() -> (TcpListener, Responder) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let responder = Responder {
        host: "127.0.0.1".into(),
        literal: Some(address.ip()),
        port: address.port(),
        authority: HeaderValue::from_str(&address.to_string()).unwrap(),
        target: PathAndQuery::from_static("/ask?x"),
    };
    (listener, responder)
}

async fn heard(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    while !heard.ends_with(b"question") {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
    }
    heard
}

/// What comes of a responder that says this, and what it has heard.
async fn said(answer: Vec<u8>) -> (Result<Bytes, ExchangeError>, String) {
    let (listener, responder) = responder().await;
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let heard = heard(&mut stream).await;
        // One that is told too much hangs up.
        stream.write_all(&answer).await.ok();
        stream.shutdown().await.ok();
        String::from_utf8(heard).unwrap()
    };
    tokio::join!(exchange(&responder, Bytes::from_static(b"question")), answering)
}

#[tokio::test]
async fn a_question_is_posted_and_the_answer_is_all_that_comes() {
    let answers = [
        "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: 6\r\n\r\nanswer",
        "HTTP/1.0 200 OK\r\n\r\nanswer",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\n\r\n",
    ];
    for answer in answers {
        let (answer, heard) = said(answer.into()).await;
        assert_eq!(answer.unwrap(), "answer");
        assert!(heard.starts_with("POST /ask?x HTTP/1.1\r\n"), "{heard}");
        let heard = heard.to_ascii_lowercase();
        for line in [
            "content-type: application/ocsp-request\r\n",
            "content-length: 8\r\n",
            "host: 127.0.0.1:",
        ] {
            assert!(heard.contains(line), "{heard}");
        }
    }
}

#[tokio::test]
async fn a_responder_is_found_by_its_name() {
    let (listener, mut responder) = responder().await;
    (responder.host, responder.literal) = ("localhost".into(), None);
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        heard(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer").await.unwrap();
        stream
    };
    let asking = exchange(&responder, Bytes::from_static(b"question"));
    let (answer, _stream) = tokio::join!(asking, answering);
    assert_eq!(answer.unwrap(), "answer");
    responder.host = "no-such-name.invalid".into();
    let unknown = exchange(&responder, Bytes::new()).await.unwrap_err();
    assert!(matches!(unknown, ExchangeError::Resolve(_) | ExchangeError::TimedOut), "{unknown:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_told_from_one() {
    let large = LARGEST + 1;
    let long = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {large}\r\n\r\n").into_bytes(),
        vec![b'x'; large],
    ];
    for (answer, why) in [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            "Status",
        ),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec(), "Status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec(), "Body"),
        (long.concat(), "Body"),
        (b"no HTTP\r\n\r\n".to_vec(), "Http"),
        (b"".to_vec(), "Http"),
        ([&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; 8 * LARGEST_HEAD]].concat(), "Http"),
    ] {
        let (answer, _) = said(answer).await;
        let found = format!("{:?}", answer.unwrap_err());
        assert!(found.starts_with(why), "{why}: {found}");
    }
    let (listener, responder) = responder().await;
    drop(listener);
    let gone = exchange(&responder, Bytes::new()).await.unwrap_err();
    assert!(matches!(gone, ExchangeError::Connect(_)), "{gone:?}");
}

#[tokio::test]
async fn a_responder_that_is_silent_or_slow_has_its_time() {
    let (listener, responder) = responder().await;
    let asking =
        tokio::spawn(async move { exchange(&responder, Bytes::from_static(b"question")).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    heard(&mut stream).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await.unwrap();
    // From here on nothing happens but that time passes.
    tokio::time::pause();
    let late = asking.await.unwrap().unwrap_err();
    assert!(matches!(late, ExchangeError::TimedOut), "{late:?}");
}
