//! What somebody switched by hand while the proxy runs: routes off, a route first, accounts on or off, more or less
//! patience. PURE.
//!
//! They lie over the configuration and last as long as the process. A reload keeps them; one that names what the new
//! configuration does not have is without effect.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};

use crate::config::settings::{Account, Model, Provider, Route, Settings};

/// The least factor for time-outs.
pub const FACTOR_MIN: f64 = 0.1;
/// The greatest.
pub const FACTOR_MAX: f64 = 10.0;

/// What is switched now. Routes are named `provider/model`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    routes_off: BTreeSet<String>,
    /// By model.
    first: BTreeMap<String, String>,
    /// By provider and account.
    accounts: BTreeMap<(String, String), bool>,
    /// By route.
    factors: BTreeMap<String, f64>,
}

/// What cannot be switched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OverrideError {
    /// No model has this route.
    #[error("There is no route {0:?}; routes are named provider/model, as in the property Routes.")]
    UnknownRoute(String),
    /// No such configured model.
    #[error("There is no configured model {0:?}.")]
    UnknownModel(String),
    /// The provider or its account does not exist.
    #[error("There is no account {account:?} of a provider {provider:?}.")]
    UnknownAccount {
        /// As named by the caller.
        provider: String,
        /// As named by the caller.
        account: String,
    },
    /// The route exists, elsewhere.
    #[error("The model {model:?} has no route {route:?}.")]
    NotARouteOf {
        /// As named by the caller.
        model: String,
        /// As named by the caller.
        route: String,
    },
    /// Not a number from [`FACTOR_MIN`] to [`FACTOR_MAX`].
    #[error("{0} is no factor from {FACTOR_MIN} to {FACTOR_MAX}.")]
    Factor(f64),
}

/// The name of a route: `provider/model`.
pub fn route_name(route: &Route) -> String {
    format!("{}/{}", route.provider, route.model)
}

impl Overrides {
    /// Switches a route off or on, for every model that has it.
    ///
    /// # Errors
    /// If no model has it.
    pub fn set_route_enabled(&mut self, settings: &Settings, route: &str, enabled: bool) -> Result<(), OverrideError> {
        known(settings, route)?;
        if enabled {
            self.routes_off.remove(route);
        } else {
            self.routes_off.insert(route.to_owned());
        }
        Ok(())
    }

    /// Puts a route first for a model.
    ///
    /// # Errors
    /// If the model does not exist or does not have the route.
    pub fn switch_route(&mut self, settings: &Settings, model: &str, route: &str) -> Result<(), OverrideError> {
        let configured = settings.models.get(model).ok_or_else(|| OverrideError::UnknownModel(model.to_owned()))?;
        if !configured.routes.iter().any(|r| route_name(r) == route) {
            known(settings, route)?;
            return Err(OverrideError::NotARouteOf { model: model.to_owned(), route: route.to_owned() });
        }
        self.first.insert(model.to_owned(), route.to_owned());
        Ok(())
    }

    /// Switches an account on or off, whatever the configuration says.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn set_account_enabled(
        &mut self,
        settings: &Settings,
        provider: &str,
        account: &str,
        enabled: bool,
    ) -> Result<(), OverrideError> {
        let accounts = settings.providers.get(provider).map_or(&[][..], |provider| &provider.accounts);
        if !accounts.iter().any(|a| a.name == account) {
            return Err(OverrideError::UnknownAccount { provider: provider.to_owned(), account: account.to_owned() });
        }
        self.accounts.insert((provider.to_owned(), account.to_owned()), enabled);
        Ok(())
    }

    /// Multiplies the time limits of a route.
    ///
    /// # Errors
    /// If no model has the route, or the factor is out of its range.
    pub fn set_timeout_factor(&mut self, settings: &Settings, route: &str, factor: f64) -> Result<(), OverrideError> {
        known(settings, route)?;
        if !(FACTOR_MIN..=FACTOR_MAX).contains(&factor) {
            return Err(OverrideError::Factor(factor));
        }
        self.factors.insert(route.to_owned(), factor);
        Ok(())
    }

    /// Whether a route may be used.
    pub fn route_enabled(&self, route: &str) -> bool {
        !self.routes_off.contains(route)
    }

    /// Whether an account may be used.
    pub fn account_enabled(&self, provider: &Provider, account: &Account) -> bool {
        let key = (provider.name.clone(), account.name.clone());
        self.accounts.get(&key).copied().unwrap_or(account.enabled)
    }

    /// What the time limits of a route are multiplied with.
    pub fn timeout_factor(&self, route: &str) -> f64 {
        self.factors.get(route).copied().unwrap_or(1.0)
    }

    /// The routes of a model in the order in which they are tried, those that are off included.
    pub fn ordered<'a>(&self, model: &'a Model) -> Vec<&'a Route> {
        let mut routes: Vec<&Route> = model.routes.iter().collect();
        if let Some(first) = self.first.get(&model.name) {
            // Stable: the others keep their order.
            routes.sort_by_key(|route| route_name(route) != *first);
        }
        routes
    }
}

fn known(settings: &Settings, route: &str) -> Result<(), OverrideError> {
    let mut routes = settings.models.values().flat_map(|model| &model.routes);
    if routes.any(|r| route_name(r) == route) {
        return Ok(());
    }
    Err(OverrideError::UnknownRoute(route.chars().take(200).collect()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config,
        proxy::route::{Choice, RouteError, choose},
    };

    fn settings() -> Settings {
        let text = "[providers.a]\nbase_url = \"http://127.0.0.1:1/v1\"\ndialect = \"generic\"\n\
                    accounts = [{ name = \"x\", key = { env = \"X\" } }, \
                    { name = \"y\", key = { env = \"Y\" }, enabled = false }]\n\
                    [providers.b]\nbase_url = \"http://127.0.0.1:2/v1\"\ndialect = \"generic\"\n\
                    [models.m]\nroutes = [\"a/one\", \"b/two\"]\n[models.n]\nroutes = [\"b/three\"]\n";
        config::parse(&[(Path::new("c.toml"), text)]).unwrap()
    }

    fn places(settings: &Settings, overrides: &Overrides) -> Vec<(String, Option<String>)> {
        match choose(settings, overrides, "m") {
            Ok(Choice::Routes(hops)) => hops.iter().map(|h| (h.label().to_owned(), h.account_name.clone())).collect(),
            Ok(Choice::Demo) => panic!("the demo"),
            Err(_) => Vec::new(),
        }
    }

    fn place(label: &str, account: Option<&str>) -> (String, Option<String>) {
        (label.to_owned(), account.map(str::to_owned))
    }

    #[test]
    fn what_is_switched_decides_over_the_configuration() {
        let settings = settings();
        let mut overrides = Overrides::default();
        assert_eq!(places(&settings, &overrides), [place("a/one", Some("x")), place("b/two", None)]);
        overrides.switch_route(&settings, "m", "b/two").unwrap();
        overrides.set_account_enabled(&settings, "a", "y", true).unwrap();
        let switched = [place("b/two", None), place("a/one", Some("x")), place("a/one", Some("y"))];
        assert_eq!(places(&settings, &overrides), switched);
        overrides.set_route_enabled(&settings, "b/two", false).unwrap();
        overrides.set_account_enabled(&settings, "a", "x", false).unwrap();
        assert_eq!(places(&settings, &overrides), [place("a/one", Some("y"))]);
        overrides.set_route_enabled(&settings, "a/one", false).unwrap();
        assert!(matches!(choose(&settings, &overrides, "m"), Err(RouteError::Disabled { .. })));
        overrides.set_route_enabled(&settings, "b/two", true).unwrap();
        assert_eq!(places(&settings, &overrides), [place("b/two", None)]);
    }

    #[test]
    fn a_factor_stretches_the_limits_of_its_route_alone() {
        let settings = settings();
        let mut overrides = Overrides::default();
        overrides.set_timeout_factor(&settings, "a/one", 2.0).unwrap();
        let Ok(Choice::Routes(hops)) = choose(&settings, &overrides, "m") else { panic!("no routes") };
        let idle = settings.proxy.upstream_idle;
        assert_eq!((hops[0].idle, hops[0].patience, hops[1].idle), (idle * 2, 2.0, idle));
        for factor in [0.0, 0.09, 10.1, f64::NAN, f64::INFINITY, -1.0] {
            assert!(overrides.set_timeout_factor(&settings, "a/one", factor).is_err(), "{factor}");
        }
    }

    #[test]
    fn unknown_names_are_told_apart() {
        let settings = settings();
        let mut all = Overrides::default();
        let unknown = OverrideError::UnknownRoute("c/x".to_owned());
        assert_eq!(all.set_route_enabled(&settings, "c/x", false), Err(unknown.clone()));
        assert_eq!(all.set_timeout_factor(&settings, "c/x", 1.0), Err(unknown.clone()));
        assert_eq!(all.switch_route(&settings, "m", "c/x"), Err(unknown));
        assert!(matches!(all.switch_route(&settings, "m", "b/three"), Err(OverrideError::NotARouteOf { .. })));
        assert!(matches!(all.switch_route(&settings, "q", "a/one"), Err(OverrideError::UnknownModel(_))));
        for (provider, account) in [("a", "z"), ("b", "x"), ("q", "x")] {
            let result = all.set_account_enabled(&settings, provider, account, true);
            assert!(matches!(result, Err(OverrideError::UnknownAccount { .. })));
        }
        assert_eq!(all, Overrides::default());
    }
}
