//! A plain Pingora proxy with one thread: `bench-pingora PORT TLS_PORT BACKEND_PORT CERTIFICATE KEY`.
//!
//! The shortest that its documentation shows: HTTP/1.1 and HTTP/2 to clients, kept connections to one backend.

use std::error::Error;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

struct Proxy {
    backend_port: u16,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        (): &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let backend = ("127.0.0.1", self.backend_port);
        Ok(Box::new(HttpPeer::new(backend, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> pingora::Result<()> {
        // What every gateway of the measurement says, or about.
        if let Some(client) = session.client_addr() {
            request.insert_header("X-Forwarded-For", client.to_string())?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, tls_port, backend_port, certificate, key] = arguments.as_slice() else {
        return Err("bench-pingora PORT TLS_PORT BACKEND_PORT CERTIFICATE KEY".into());
    };
    let conf = ServerConf { threads: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Proxy { backend_port: backend_port.parse()? };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&format!("127.0.0.1:{port}"));
    let mut tls = TlsSettings::intermediate(certificate, key)?;
    tls.enable_h2();
    service.add_tls_with_settings(&format!("127.0.0.1:{tls_port}"), None, tls);
    server.add_service(service);
    server.run_forever();
}
