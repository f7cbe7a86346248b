//! Lays the files of a configuration over one another. PURE.
//!
//! Tables merge key by key; every other value, arrays too, replaces what a lower layer said. Where keys exclude each
//! other the higher layer's choice wins whole: a key source (`{ env = … }` over `{ file = … }`) is one value, and
//! `key` and `accounts` replace each other.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::fragment::{Node, Table, Value};

/// Lays `layers` over one another, lowest first.
pub fn merge(layers: impl IntoIterator<Item = Table>) -> Table {
    let mut merged = Table::new();
    for layer in layers {
        lay_over(&mut merged, layer, None);
    }
    merged
}

/// `within` is the key whose table this is.
fn lay_over(below: &mut Table, above: Table, within: Option<&str>) {
    for (lower, higher) in [("accounts", "key"), ("key", "accounts")] {
        if above.contains_key(higher) && !above.contains_key(lower) {
            below.remove(lower);
        }
    }
    for (key, node) in above {
        let whole = key == "key" || within == Some("headers");
        match (below.get_mut(&key), node.value) {
            (Some(Node { value: Value::Table(old), place }), Value::Table(new)) if !whole => {
                *place = node.place;
                lay_over(old, new, Some(&key));
            }
            (_, value) => {
                below.insert(key, Node { place: node.place, value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::fragment::parse;

    fn merged(layers: &[&str]) -> Table {
        merge(layers.iter().enumerate().map(|(i, text)| parse(Path::new(&format!("{i}.toml")), text).unwrap()))
    }

    fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Node> {
        let mut keys = path.split('.');
        let mut node = table.get(keys.next()?)?;
        for key in keys {
            let Value::Table(inner) = &node.value else { return None };
            node = inner.get(key)?;
        }
        Some(node)
    }

    #[test]
    fn tables_merge_key_by_key_and_values_keep_their_file() {
        let table = merged(&["[proxy]\nkeepalive_s = 1\ndrain_s = 2", "[proxy]\nkeepalive_s = 3"]);
        let keepalive = at(&table, "proxy.keepalive_s").unwrap();
        assert_eq!(keepalive.value, Value::Integer(3));
        assert_eq!(keepalive.place.to_string(), "1.toml:2");
        assert_eq!(at(&table, "proxy.drain_s").unwrap().place.to_string(), "0.toml:3");
    }

    #[test]
    fn arrays_replace() {
        let table = merged(&["[models.m]\nroutes = ['a/b', 'c/d']", "[models.m]\nroutes = ['e/f']"]);
        let Value::Array(routes) = &at(&table, "models.m.routes").unwrap().value else { panic!() };
        assert_eq!(routes.len(), 1);
    }

    #[test]
    fn a_key_source_is_one_value() {
        let table = merged(&["[providers.p]\nkey = { env = 'A' }", "[providers.p]\nkey = { file = '/k' }"]);
        assert!(at(&table, "providers.p.key.env").is_none());
        assert!(at(&table, "providers.p.key.file").is_some());
    }

    #[test]
    fn key_and_accounts_replace_each_other() {
        let table = merged(&["[providers.p]\nkey = { env = 'A' }", "[providers.p]\naccounts = []"]);
        assert!(at(&table, "providers.p.key").is_none());
        let table = merged(&["[providers.p]\naccounts = []", "[providers.p]\nkey = { env = 'A' }"]);
        assert!(at(&table, "providers.p.accounts").is_none());
    }
}
