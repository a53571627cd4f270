//! A snapshot's rewrite sets, and that every action's is among them.

use holdfast_proto::control as wire;

use super::SnapshotRefusal;
use crate::rewrite::RewriteSet;

pub(super) fn compile(
    sets: Vec<wire::RewriteSet>,
    sites: &[wire::Site],
) -> Result<Vec<RewriteSet>, SnapshotRefusal> {
    for site in sites {
        let actions = site.paths.iter().map(|path| &path.action).chain([&site.default_action]);
        for index in actions.flatten().filter_map(|action| action.rewrite_set) {
            if usize::try_from(index).map_or(true, |index| index >= sets.len()) {
                return Err(SnapshotRefusal::NoRewrite { site: site.name.clone(), index });
            }
        }
    }
    sets.into_iter()
        .map(|set| {
            let name = set.name.clone();
            RewriteSet::compile(set).map_err(|source| SnapshotRefusal::Rewrite { name, source })
        })
        .collect()
}
