//! The contracts in `dbus/`, compared with what the running programs say of themselves.

use super::bus::Bus;
use super::root;
use std::collections::BTreeSet;

/// Compares the contract of an interface with the object that the name's owner serves; it has more than so many lines.
pub async fn is_kept(bus: &Bus, interface: &str, path: &str, lines: usize) {
    let connection = bus.connect().await;
    let of = Some("org.freedesktop.DBus.Introspectable");
    let reply = connection.call_method(Some(interface), path, of, "Introspect", &()).await.unwrap();
    let live: String = reply.body().deserialize().unwrap();
    let kept = std::fs::read_to_string(root().join(format!("dbus/{interface}.xml"))).unwrap();
    assert_eq!(members(&kept, interface), members(&live, interface), "{live}");
    assert!(members(&kept, interface).len() > lines);
}

/// One line for each element of an interface, sorted, without comments.
fn members(xml: &str, interface: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let mut rest = xml;
    while let Some((before, after)) = rest.split_once("<!--") {
        bare.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, after)| after);
    }
    bare.push_str(rest);
    let interface = bare.split("<interface name=\"").find(|part| part.starts_with(interface)).expect("the interface");
    let interface = interface.split("</interface>").next().unwrap();
    let mut members = BTreeSet::new();
    let (mut member, mut at) = (String::new(), 0);
    for tag in interface.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap().trim().trim_end_matches('/');
        let kind = tag.split_whitespace().next().unwrap_or_default();
        // Attributes in one order; signals' arguments may say that they go out.
        let mut attributes: Vec<&str> =
            tag[kind.len()..].split("\" ").map(|a| a.trim().trim_end_matches('"')).collect();
        attributes.sort_unstable();
        let attributes = attributes.join(" ");
        match kind {
            "property" | "method" | "signal" => {
                (member, at) = (format!("{kind} {attributes}"), 0);
                members.insert(member.clone());
            }
            "arg" | "annotation" => {
                members.insert(format!("{member} / {kind} {at} {attributes}"));
                at += 1;
            }
            _ => {}
        }
    }
    members
}
