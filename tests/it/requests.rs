//! Requests as the real client sends them (`tests/golden/requests/<case>/responses.json`, its own prompt and tool
//! descriptions replaced by placeholders) and others made by hand, in the words of three hosts that differ most, with
//! what was lost on the way in `losses.txt`.

use std::fs;

use codex_proxy::{
    codec::{
        Target,
        chat::{self, dialect::Dialect},
        responses::request::{Decoded, decode_request},
        seal::Sealer,
    },
    model::request::{Loss, Origin},
};
use serde_json::Value;

use crate::support::golden::{Differences, cases};

/// Host, model and whether the model takes pictures.
const TARGETS: [(&str, &str, bool); 3] =
    [("openai", "gpt-4.1", true), ("deepseek", "deepseek-v4-pro", false), ("mistral", "devstral-medium", true)];

fn target(dialect: &str, model: &str, accepts_images: bool) -> Target {
    Target {
        origin: Origin::new("up", model),
        model: model.to_owned(),
        dialect: Dialect::named(dialect).unwrap(),
        effort: None,
        accepts_images,
        max_output_tokens: None,
    }
}

fn lines(losses: &[Loss]) -> String {
    losses.iter().map(|loss| format!("{}: {:?}: {}\n", loss.path, loss.action, loss.why)).collect()
}

#[test]
fn requests_are_said_as_kept_and_losses_are_listed() {
    let sealer = Sealer::new(&[7; 32]);
    let mut differences = Differences::default();
    let cases = cases("requests");
    assert!(cases.len() >= 19, "cases are missing");
    for case in cases {
        let body = fs::read(case.join("responses.json")).unwrap();
        let Decoded { request, losses, .. } =
            decode_request(&body, &sealer).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let mut all = format!("read\n{}", lines(&losses));
        for (dialect, model, images) in TARGETS {
            let target = target(dialect, model, images);
            let encoded = chat::encode_request(&request, &target).unwrap();
            let again = chat::encode_request(&request, &target).unwrap();
            assert_eq!(encoded.body, again.body, "the same request gives the same bytes");
            let json: Value = serde_json::from_slice(&encoded.body).unwrap();
            let pretty = serde_json::to_string_pretty(&json).unwrap() + "\n";
            differences.compare(&case.join(format!("chat.{dialect}.json")), &pretty);
            all.push_str(&format!("\n{dialect}\n{}", lines(&encoded.losses)));
        }
        differences.compare(&case.join("losses.txt"), &all);
    }
    differences.none();
}
