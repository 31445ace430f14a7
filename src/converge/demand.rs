//! What a DesiredLRP or Task asks of the Cell it shall run on.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::api::template::{self, RawTemplate, Resources};

use super::process_spec::ProcessSpec;

/// The needs of one instance or Task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// Memory and disk, in bytes. Every instance also takes one container.
    pub resources: Resources,
    /// Placement tags, sorted.
    pub tags: Vec<String>,
    /// What a Cell with executor Process could not give, as a sentence; `None` if it can give all.
    pub process_refusal: Option<String>,
}

impl Demand {
    /// Reads a template and its placement tags.
    ///
    /// # Errors
    /// What is wrong with the template, naming the field.
    pub fn new(template: &RawTemplate, tags: &[String]) -> Result<Demand, String> {
        let parsed: PodTemplateSpec = template.parse().map_err(|error| error.to_string())?;
        let resources = template::resources(&parsed).map_err(|error| error.to_string())?;
        let mut tags = tags.to_vec();
        tags.sort();
        let process_refusal = ProcessSpec::from_template(&parsed)
            .err()
            .map(|refusal| refusal.to_string());
        Ok(Demand {
            resources,
            tags,
            process_refusal,
        })
    }
}
