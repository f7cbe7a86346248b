//! Reading the configuration anew, for SIGHUP and for the bus alike.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::{
    catalogue, known,
    service::{Prompt, Service, State},
};
use crate::{
    config::{self, Layers, Settings},
    host::{cataloguefile, manager::Manager, secretfile},
};

/// Knows where the configuration lies and who wants to hear of it.
#[derive(Debug)]
pub struct Reloader {
    service: Arc<Service>,
    layers: Layers,
    state: PathBuf,
    cache: PathBuf,
    manager: Manager,
    /// One at a time, or an older reading could win.
    turn: Mutex<()>,
}

impl Reloader {
    /// Reads `layers`, the stored catalogue in `state`, and what is known of local servers in `cache`.
    pub fn new(service: Arc<Service>, layers: Layers, state: PathBuf, cache: PathBuf, manager: Manager) -> Self {
        Self { service, layers, state, cache, manager, turn: Mutex::new(()) }
    }

    /// Puts the configuration and the system prompt in force as they are now.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration: then the old one stays.
    pub async fn reload(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.manager.reloading();
        let result = self.read().await;
        self.service.set_reload_error(result.as_ref().err().cloned().unwrap_or_default());
        self.manager.ready(&self.service.status_line());
        result
    }

    async fn read(&self) -> Result<(), String> {
        let (layers, state, cache) = (self.layers.clone(), self.state.clone(), self.cache.clone());
        // Files may lie on slow disks.
        let read = tokio::task::spawn_blocking(move || {
            let settings = config::load(&layers).map(|settings| {
                let known = known::load(&settings, &state, &cache);
                Settings { known, ..settings }
            });
            (settings, prompt(&state))
        })
        .await;
        match read {
            Ok((Ok(settings), prompt)) => {
                let offered = settings.offered();
                self.service.reload(settings, &prompt);
                if !self.service.has_token()
                    && let Ok(token) = secretfile::load_or_create(&self.state, secretfile::TOKEN)
                {
                    self.service.set_token(token);
                }
                if matches!(*self.service.state().borrow(), State::ConfigError(_)) && self.service.has_token() {
                    self.service.set_state(State::Ready);
                }
                // Afterwards: who waits for this entry finds the new settings in force.
                info!(codex_models = ?offered, "configuration reloaded");
                Ok(())
            }
            Ok((Err(errors), _)) => {
                error!(codex_error = %errors, "the new configuration cannot be used, keeping the old settings");
                Err(errors.to_string())
            }
            Err(error) => {
                error!(codex_error = %error, "the configuration was not read, keeping the old settings");
                Err("the configuration was not read".to_owned())
            }
        }
    }
}

/// What the catalogue says beside the models: what the client's own says, if `codex-proxyctl` has stored it.
pub fn prompt(state: &Path) -> Prompt {
    let own = || Prompt { base_instructions: catalogue::BASE_INSTRUCTIONS.to_owned(), hidden_models: Vec::new() };
    match cataloguefile::load(state) {
        Ok(Some(stored)) if stored.has_prompt() => {
            Prompt { base_instructions: stored.base_instructions, hidden_models: stored.built_in_models }
        }
        Ok(_) => own(),
        Err(error) => {
            warn!(codex_error = %error, "cannot read the stored catalogue, giving Codex the built-in system prompt");
            own()
        }
    }
}
