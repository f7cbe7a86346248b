//! Reading the configuration anew, for SIGHUP and for the bus alike.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Mutex, Notify};
use tracing::{debug, error, info, warn};

use super::{
    catalogue, known, listing,
    service::{Prompt, Service, State},
};
use crate::{
    config::{self, Layers, Settings},
    host::{capsfile, cataloguefile, manager::Manager, secretfile},
    model::listed::List,
};

/// For one server of the user's own.
const SERVER_TIME_MAX: Duration = Duration::from_secs(10);

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
    /// For who learns afterwards.
    reloaded: Notify,
}

impl Reloader {
    /// Reads `layers`, the stored catalogue in `state`, and what is known of local servers in `cache`.
    pub fn new(service: Arc<Service>, layers: Layers, state: PathBuf, cache: PathBuf, manager: Manager) -> Self {
        Self { service, layers, state, cache, manager, turn: Mutex::new(()), reloaded: Notify::new() }
    }

    /// Asks the user's own servers what they are set to, now and after every reload, and puts in force what is news.
    /// Never returns.
    pub async fn keep_learning(&self) {
        loop {
            self.learn().await;
            self.reloaded.notified().await;
        }
    }

    async fn learn(&self) {
        let live = self.service.live();
        let mut lists = BTreeMap::new();
        for provider in known::to_be_asked(&live.settings) {
            let asking = listing::ask_with_first_key(&live.upstreams, provider);
            match tokio::time::timeout(SERVER_TIME_MAX, asking).await {
                Ok(Ok(models)) => {
                    let asked_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                    let list = List { address: provider.base_url.to_string(), asked_s, models };
                    lists.insert(provider.name.clone(), known::value_of(&list));
                }
                // It need not run; what it said last is still there.
                Ok(Err(error)) => debug!(
                    codex_provider = provider.name,
                    codex_error = error,
                    "a local server does not list its models"
                ),
                Err(_) => debug!(codex_provider = provider.name, "a local server is slow to list its models"),
            }
        }
        if lists.is_empty() {
            return;
        }
        let _turn = self.turn.lock().await;
        // What is in force may have changed meanwhile.
        let settings = self.service.live().settings.clone();
        let (state, cache) = (self.state.clone(), self.cache.clone());
        let read = tokio::task::spawn_blocking(move || {
            if let Err(error) = capsfile::update(&cache, |caps| caps.providers.extend(lists)) {
                warn!(codex_error = %error, "cannot keep what local servers say of themselves");
            }
            let known = known::load(&settings, &state, &cache);
            (Settings { known, ..settings }, prompt(&state))
        })
        .await;
        if let Ok((settings, prompt)) = read
            && settings.known != self.service.live().settings.known
        {
            self.service.reload(settings, &prompt);
            info!("local servers said what they are set to");
        }
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
        if result.is_ok() {
            self.reloaded.notify_one();
        }
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
