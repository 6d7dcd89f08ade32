//! Hooks that run inside a container.

use async_trait::async_trait;
use rekindle_core::port::{Hook, HookOutcome, HookRunner};
use rekindle_core::{Fault, Result, codes};

use super::engine::Engine;
use super::exec::{Exit, Order};
use crate::hook::{OUTPUT_TAIL_BYTES_MAX, ProcessHooks, SOFT_SKIP};

/// Runs hooks where they belong: on this host, or in their container.
#[derive(Debug, Clone)]
pub struct StackHooks {
    engine: Engine,
}

impl StackHooks {
    /// With the engine that is asked when a hook names a container.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    async fn inside(&self, name: &str, hook: &Hook, variables: &[(&'static str, String)]) -> Result<HookOutcome> {
        let program = hook.command.first().map_or("", String::as_str);
        let failed = || Fault::new(codes::ENGINE_HOOK, format!("run `{program}` in the container `{name}`"));
        let container = self.engine.container(name).await?;
        container.running()?;
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let order = Order { command: hook.command.clone(), environment, input: false, output: true };
        let mut exec = container.inside().start(order).await?;
        let mut said = Vec::new();
        let work = async {
            while let Some(bytes) = exec.next().await {
                said.extend_from_slice(&bytes);
                let surplus = said.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX);
                said.drain(..surplus);
            }
            exec.exit().await
        };
        let Ok(ended) = tokio::time::timeout(hook.timeout, work).await else {
            exec.kill().await;
            let why = format!("it did not end within {} s and was killed", hook.timeout.as_secs());
            return Err(failed().because(why).hint("raise the hook's `timeout` or make it faster"));
        };
        let Exit { code, stderr } = ended?;
        match i32::try_from(code) {
            Ok(0) => Ok(HookOutcome::Done),
            Ok(SOFT_SKIP) => Ok(HookOutcome::SoftSkip),
            _ => {
                let out = String::from_utf8_lossy(&said).trim().to_owned();
                let texts: Vec<String> = [stderr, out].into_iter().filter(|text| !text.is_empty()).collect();
                let said = if texts.is_empty() { String::new() } else { format!(", it said: {}", texts.join(", ")) };
                Err(failed().because(format!("exit status: {code}{said}")).hint(
                    "run the hook's command by hand (`docker exec`) and mend it; exit code 75 skips without an error",
                ))
            }
        }
    }
}

#[async_trait]
impl HookRunner for StackHooks {
    async fn run(&self, hook: &Hook, variables: &[(&'static str, String)]) -> Result<HookOutcome> {
        match &hook.container {
            Some(container) => self.inside(container, hook, variables).await,
            None => ProcessHooks.run(hook, variables).await,
        }
    }
}
