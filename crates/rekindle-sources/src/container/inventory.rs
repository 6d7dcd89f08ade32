//! What a bare machine has to know about a compose project, as a document: which image each service ran
//! (by digest), which volumes and networks there were, with their labels.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::query_parameters::{InspectNetworkOptions, ListVolumesOptions};
use rekindle_core::port::{Capture, Component, Finding, PartReader, RestoreReport, RestoreRequest, RunContext};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use serde_json::{Value, json};

use super::component::{bad, image};
use super::compose::Project;
use super::engine::Engine;
use super::inspect::{Container, Mount};
use super::services::of_project;
use crate::files::{FilesComponent, FilesOptions};

/// Its name at the top of the part.
const DOCUMENT: &str = "containers.json";

/// The files of a compose project, and the inventory.
#[derive(Debug, Clone)]
pub struct ComposeComponent {
    id: ComponentId,
    engine: Engine,
    file: PathBuf,
    files: FilesOptions,
}

impl ComposeComponent {
    /// `files` are those that compose reads.
    pub fn new(id: ComponentId, engine: Engine, file: PathBuf, files: FilesOptions) -> Self {
        Self { id, engine, file, files }
    }

    fn plain(&self) -> Result<FilesComponent> {
        FilesComponent::new(self.id.clone(), self.files.clone())
    }
}

#[async_trait]
impl Component for ComposeComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        ComponentKind::Files
    }

    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        let mut findings = self.plain()?.probe(context).await?;
        let looked = async {
            findings.push(Finding::good(format!(
                "{} answers at {}",
                self.engine.version().await?,
                self.engine.address()
            )));
            let project = Project::read(&self.file)?;
            let found = of_project(&self.engine, &project).await?;
            for (service, wanted) in &project.services {
                match found.get(service).filter(|containers| !containers.is_empty()) {
                    Some(containers) => {
                        for container in containers {
                            findings.push(match container.running() {
                                Ok(()) => Finding::good(format!("the service `{service}` runs")),
                                Err(fault) => bad(&fault),
                            });
                            findings.extend(image(&self.engine, container).await?);
                        }
                    }
                    None => findings.push(absent(&self.engine, &project, service, wanted.image.as_deref()).await?),
                }
            }
            Ok(())
        };
        let looked: Result<()> = looked.await;
        if let Err(fault) = looked {
            findings.push(bad(&fault));
        }
        Ok(findings)
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        context.monitor.phase(self.id.as_str(), "look at the containers");
        let project = Project::read(&self.file)?;
        let document = inventory(&self.engine, &project).await?;
        let bytes = serde_json::to_vec_pretty(&document)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write the inventory of containers").because(error))?;
        let mut files = self.files.clone();
        files.documents.push((DOCUMENT.to_owned(), bytes));
        FilesComponent::new(self.id.clone(), files)?.begin(context).await
    }

    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let mut report = self.plain()?.restore(part, request, context).await?;
        report.warnings.push(format!(
            "images (by digest), volumes and networks are listed in `{DOCUMENT}` (`rekindle cat POINT {}/{DOCUMENT}`)",
            self.id
        ));
        Ok(report)
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.plain()?.check(part, report, context).await
    }

    async fn occupied(&self, part: Arc<dyn PartReader>, context: &RunContext) -> Result<Option<String>> {
        self.plain()?.occupied(part, context).await
    }

    async fn roll_back(&self, report: &RestoreReport, context: &RunContext) -> Result<()> {
        self.plain()?.roll_back(report, context).await
    }
}

async fn absent(engine: &Engine, project: &Project, service: &str, wanted: Option<&str>) -> Result<Finding> {
    let compose = format!("docker compose -f {}", project.file.display());
    Ok(match wanted {
        Some(image) if !engine.has_image(image).await? => Finding::bad(
            format!("the service `{service}` has no container, and its image `{image}` is not here"),
            format!(
                "pull or load it ({compose} pull {service}; the digest is in `{DOCUMENT}` of a point), then `{compose} up -d`"
            ),
        ),
        _ => Finding::bad(format!("the service `{service}` has no container"), format!("{compose} up -d {service}")),
    })
}

async fn inventory(engine: &Engine, project: &Project) -> Result<Value> {
    let found = of_project(engine, project).await?;
    let mut services = Vec::new();
    for (service, containers) in &found {
        for container in containers {
            services.push(describe(engine, service, container).await?);
        }
    }
    let volumes = volumes(engine, found.values().flatten()).await?;
    Ok(json!({
        "version": 1,
        "engine": engine.version().await?,
        "project": project.name,
        "compose_file": project.file,
        "services": services,
        "volumes": volumes,
        "networks": networks(engine, found.values().flatten()).await?,
    }))
}

async fn describe(engine: &Engine, service: &str, container: &Container) -> Result<Value> {
    let docker = engine.docker().await?;
    // A container outlives its image; the id alone is known then.
    let image = docker.inspect_image(&container.image_id).await.ok();
    let mounts: Vec<Value> = container.mounts.iter().map(|mount| {
        json!({"volume": mount.volume, "source": mount.source, "destination": mount.destination, "writable": mount.writable})
    }).collect();
    Ok(json!({
        "service": service,
        "container": container.name,
        "image": container.image,
        "image_id": container.image_id,
        "digests": image.as_ref().and_then(|image| image.repo_digests.clone()),
        "tags": image.as_ref().and_then(|image| image.repo_tags.clone()),
        "labels": container.labels,
        "mounts": mounts,
        "networks": container.networks,
        "ports": container.ports.iter().map(|(host, inside)| json!({"host": host, "container": inside})).collect::<Vec<_>>(),
    }))
}

/// Volumes that containers of the project use. Compose refuses volumes without its labels.
async fn volumes(engine: &Engine, containers: impl Iterator<Item = &Container>) -> Result<Vec<Value>> {
    let used: std::collections::BTreeSet<String> =
        containers.flat_map(|container| &container.mounts).filter_map(|mount: &Mount| mount.volume.clone()).collect();
    let listed = engine.docker().await?.list_volumes(None::<ListVolumesOptions>).await;
    let listed = listed.map_err(|error| engine.fault("list the volumes", error))?;
    let mut volumes = listed.volumes.unwrap_or_default();
    volumes.retain(|volume| used.contains(&volume.name));
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes
        .into_iter()
        .map(|volume| json!({"name": volume.name, "driver": volume.driver, "labels": volume.labels, "options": volume.options}))
        .collect())
}

async fn networks(engine: &Engine, containers: impl Iterator<Item = &Container>) -> Result<Vec<Value>> {
    let names: std::collections::BTreeSet<&String> = containers.flat_map(|container| &container.networks).collect();
    let mut networks = Vec::new();
    for name in names {
        // `host` and `none` are no networks of their own everywhere.
        if let Ok(network) = engine.docker().await?.inspect_network(name, None::<InspectNetworkOptions>).await {
            networks.push(
                json!({"name": name, "driver": network.driver, "labels": network.labels, "internal": network.internal}),
            );
        }
    }
    Ok(networks)
}
