//! `holdfast fetch-page URL`: one error page for the supervisor, or one answer of an OCSP responder, on standard output. A
//! process of its own, so that what a foreign server says is parsed where nothing can be harmed.

use std::io::{self, Write};

use anyhow::Context;

/// Prints the page, or what was answered, or fails with the reason.
pub(crate) fn run(url: &str, question: Option<&str>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let page = runtime.block_on(async {
        match question {
            Some(question) => holdfast_prober::ask_responder(url, question).await,
            None => holdfast_prober::fetch_page(url).await,
        }
    });
    // A name that is still being looked up must not hold the end up.
    runtime.shutdown_background();
    let mut output = io::stdout().lock();
    output.write_all(&page?)?;
    output.flush()?;
    Ok(())
}
