//! What is told of the vault's refusals: of a shortage each reason once, however many deposits are refused in it.

/// A shortage, from the first refusal until the vault holds every tunnel again.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    told: Vec<String>,
}

impl Shortage {
    /// So many deposits were refused.
    pub(super) fn note_refused(&mut self, tunnels: usize, reason: String) {
        if !self.told.contains(&reason) {
            tracing::warn!(tunnels, reason, "the vault holds no more tunnels");
            self.told.push(reason);
        }
    }

    /// Whether there is one.
    pub(super) fn is_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// It is over.
    pub(super) fn end(&mut self) {
        self.told.clear();
        tracing::info!("the vault holds every tunnel again");
    }
}
