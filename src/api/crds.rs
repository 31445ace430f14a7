//! The CRDs as YAML, one file per kind.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::{ActualLRP, Cell, DesiredLRP, Task};

/// A kind's CRD and the name of its file under `crds/`.
pub struct CrdFile {
    /// The file's name: `diego.cloudfoundry.org_cells.yaml`.
    pub name: String,
    /// The definition.
    pub crd: CustomResourceDefinition,
}

/// All CRDs, in the order in which people read about them.
pub fn all() -> Vec<CrdFile> {
    [
        Cell::crd(),
        DesiredLRP::crd(),
        ActualLRP::crd(),
        Task::crd(),
    ]
    .into_iter()
    .map(|crd| CrdFile {
        name: format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural),
        crd,
    })
    .collect()
}

impl CrdFile {
    /// The file's content.
    ///
    /// # Errors
    /// When the definition can't be written as YAML, which would be a defect of the types.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let body = serde_saphyr::to_string(&self.crd)?;
        Ok(format!(
            "# Generated from src/api by `make crds`; do not edit.\n---\n{}\n",
            body.trim_end()
        ))
    }
}
