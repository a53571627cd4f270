//! Compiles the `.proto` files with protox, so that nobody needs a protoc.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let sources = [
        "holdfast/control/v1/distribution.proto",
        "holdfast/control/v1/error_page.proto",
        "holdfast/control/v1/pool.proto",
        "holdfast/control/v1/logging.proto",
        "holdfast/control/v1/client_source.proto",
        "holdfast/control/v1/rewrite.proto",
        "holdfast/control/v1/standing.proto",
        "holdfast/control/v1/tls.proto",
        "holdfast/control/v1/listener.proto",
        "holdfast/control/v1/control.proto",
        "holdfast/control/v1/probe.proto",
        "holdfast/control/v1/tunnel.proto",
        "holdfast/admin/v1/explain.proto",
        "holdfast/admin/v1/admin.proto",
    ];
    println!("cargo:rerun-if-changed=holdfast");
    let descriptors = protox::compile(sources, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(out.join("holdfast.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Shared by every listener that has the page.
        .bytes(".holdfast.control.v1.ErrorPage.body")
        .skip_debug(["holdfast.control.v1.TicketKey"])
        .compile_fds(descriptors)?;
    Ok(())
}
