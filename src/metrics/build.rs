//! Which build this is.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Label set of the build.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabel {
    version: &'static str,
    revision: &'static str,
    rustc: &'static str,
}

/// Registers `diego_build_info`.
pub fn register(registry: &mut Registry) {
    let build: Family<BuildLabel, Gauge> = Family::default();
    let label = BuildLabel {
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("DIEGO_REVISION"),
        rustc: env!("DIEGO_RUSTC"),
    };
    build.get_or_create(&label).set(1);
    registry.register(
        "diego_build_info",
        "Version, revision and compiler of this program; always 1",
        build,
    );
}
