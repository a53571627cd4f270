//! An error page as it was fetched for a revision: with it, neither a restart nor a roll back needs the network.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A page under the URL that it was fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPage {
    /// As the document has it.
    pub url: String,
    /// What was there.
    #[serde(with = "base64_text")]
    pub body: Arc<[u8]>,
}

/// Bytes as base64: JSON has no better word for them.
mod base64_text {
    use std::sync::Arc;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(body))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u8]>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Arc::from).map_err(D::Error::custom)
    }
}
