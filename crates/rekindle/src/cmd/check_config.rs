//! `check-config`

use clap::Args;
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Check the configuration and show what it means
#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    /// Print the JSON Schema of the configuration instead
    #[arg(long)]
    schema: bool,
}

impl CheckConfig {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        if self.schema {
            let schema = rekindle_config::json_schema();
            let text = format!("{schema:#}\n");
            return Ok(Answer::data(schema, text));
        }
        let config = wire::config(session)?;
        let rows: Vec<Vec<String>> = config.components.iter().map(row).collect();
        let components: Vec<_> = config
            .components
            .iter()
            .map(|one| {
                json!({
                    "component": one.id,
                    "kind": one.kind(),
                    "schedule": one.schedule.as_ref().map(rekindle_config::Schedule::as_str),
                    "objective": one.objective,
                })
            })
            .collect();
        let result = json!({
            "file": config.file,
            "stack": config.stack.name,
            "repository": config.repository.url,
            "components": components,
            "retention": config.retention.is_some(),
        });
        let text = format!(
            "{} is valid: stack `{}`, repository {}\n\n{}{}",
            config.file.display(),
            config.stack.name,
            config.repository.url,
            human::table(&["COMPONENT", "KIND", "SCHEDULE", "RPO", "RTO", "PROOF"], &rows),
            if config.retention.is_some() { "" } else { "\nThere is no [retention]: nothing is ever removed.\n" },
        );
        Ok(Answer::words(result, text))
    }
}

fn row(one: &rekindle_config::Component) -> Vec<String> {
    let target = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), human::seconds);
    vec![
        one.id.to_string(),
        one.kind().to_string(),
        one.schedule.as_ref().map_or("-", |schedule| schedule.as_str()).to_owned(),
        target(one.objective.rpo_seconds),
        target(one.objective.rto_seconds),
        target(one.objective.proof_seconds),
    ]
}
