//! How large a template grows when its references are expanded. Each variable may name the one before it twice, so that a
//! few lines would be more than all memory: such a template is refused before anybody expands it.

use std::collections::BTreeMap;

use super::{Check, EnvValue, ProcessSpec};

/// In bytes, for each of: the command line with the environment, and the command of a probe. The kernel starts nothing that
/// is larger than a quarter of its stack limit, which is usually this.
pub(super) const LIMIT: u64 = 2 << 20;

/// What a name may stand for that is none of the template's: a name, an address, and for each port what the Cell says of it.
const GIVEN: u64 = 512;
const GIVEN_PER_PORT: u64 = 64;

/// Whether it grows beyond [`LIMIT`].
pub(super) fn is_too_large(spec: &ProcessSpec) -> bool {
    let ports = u64::try_from(spec.ports.len()).unwrap_or(u64::MAX);
    let given = GIVEN_PER_PORT.saturating_mul(ports).saturating_add(GIVEN);
    let mut sizes = BTreeMap::<&str, u64>::new();
    let mut total: u64 = 0;
    for (name, value) in &spec.env {
        let size = match value {
            EnvValue::Text(text) => expanded(text, &sizes, given),
            EnvValue::Field(_) => given,
        };
        total = total.saturating_add(size);
        // The Cell's own value of that name would win, and may be larger.
        sizes.insert(name, size.max(given));
    }
    let of = |texts: &[String]| {
        let sizes = texts.iter().map(|text| expanded(text, &sizes, given));
        sizes.fold(0, u64::saturating_add)
    };
    let probes = [&spec.readiness, &spec.liveness, &spec.startup];
    let probed = probes
        .into_iter()
        .flatten()
        .map(|probe| match &probe.check {
            Check::Exec { command } => of(command),
            _ => 0,
        });
    let line = of(&spec.command).saturating_add(of(&spec.args));
    total.saturating_add(line) > LIMIT || probed.into_iter().any(|size| size > LIMIT)
}

/// The length of what [`super::expand`] makes of a text.
fn expanded(text: &str, sizes: &BTreeMap<&str, u64>, given: u64) -> u64 {
    let mut size: u64 = 0;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        size = size.saturating_add(before.len() as u64);
        rest = after;
        let reference = rest.strip_prefix('(');
        if let Some(after) = rest.strip_prefix('$') {
            size = size.saturating_add(1);
            rest = after;
        } else if let Some((name, after)) = reference.and_then(|inner| inner.split_once(')')) {
            // One that stands for nothing stays as it is written.
            let stays = name.len() as u64 + 3;
            let size_of = sizes.get(name).copied().unwrap_or(given.max(stays));
            size = size.saturating_add(size_of);
            rest = after;
        } else {
            size = size.saturating_add(1);
        }
    }
    size.saturating_add(rest.len() as u64)
}
