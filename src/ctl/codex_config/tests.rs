//! Edits and their undoing, by example and for any file.

use proptest::prelude::*;

use super::*;

fn wanted() -> Wanted {
    Wanted {
        port: 8459,
        command: "/opt/x/codex-proxyctl".to_owned(),
        model: Some("work".to_owned()),
        fallback_model: None,
        default: false,
    }
}

fn forced() -> Wanted {
    Wanted { default: true, ..wanted() }
}

fn applied(text: &str, wanted: &Wanted) -> String {
    apply(Some(text), wanted).unwrap().text
}

fn restored(text: &str) -> Restored {
    restore(text).unwrap()
}

fn values(text: &str) -> toml::Table {
    toml::from_str(text).unwrap()
}

#[test]
fn a_missing_file_becomes_the_designed_one_and_goes_again() {
    let made = apply(None, &wanted()).unwrap();
    assert!(made.is_default);
    let expected: toml::Table = toml::from_str(
        r#"
        model = "work"
        model_provider = "codex-proxy"
        [model_providers.codex-proxy]
        name = "codex-proxy"
        base_url = "http://127.0.0.1:8459/v1"
        wire_api = "responses"
        request_max_retries = 0
        stream_max_retries = 10
        stream_idle_timeout_ms = 300000
        supports_websockets = false
        [model_providers.codex-proxy.auth]
        command = "/opt/x/codex-proxyctl"
        args = ["token", "--port", "8459", "--hold"]
        timeout_ms = 86400000
        "#,
    )
    .unwrap();
    assert_eq!(values(&made.text), expected);
    let gone = restored(&made.text);
    assert_eq!((gone.text.as_str(), gone.delete_file), ("", true));
    assert!(!restored(&applied("", &wanted())).delete_file, "an empty file is not a missing one");
}

#[test]
fn another_choice_of_the_user_stays_unless_default_is_asked() {
    let text = "model = \"gpt-5\" # mine\nmodel_provider = \"azure\"\n[model_providers.azure]\nname = \"a\"\n";
    let beside = apply(Some(text), &wanted()).unwrap();
    assert!(!beside.is_default);
    assert!(beside.text.starts_with(text));
    let instead = apply(Some(text), &forced()).unwrap();
    assert!(instead.is_default);
    assert_eq!(values(&instead.text)["model"].as_str(), Some("work"));
    assert!(instead.text.contains("# codex-proxyctl aside model: model = \"gpt-5\" # mine\n"));
    assert_eq!(restored(&instead.text).text, text);
    assert_eq!(apply(Some(text), &Wanted { model: None, ..forced() }), Err(EditError::NoModel));
}

#[test]
fn one_key_of_the_pair_is_a_choice_too() {
    for text in ["model = \"gpt-5\"\n", "model_provider = \"azure\"\n"] {
        assert!(!apply(Some(text), &wanted()).unwrap().is_default);
        assert_eq!(restored(&applied(text, &forced())).text, text);
    }
}

#[test]
fn no_pair_is_written_without_a_model() {
    let made = apply(Some(""), &Wanted { model: None, ..wanted() }).unwrap();
    assert!(!made.is_default);
    assert!(!values(&made.text).contains_key("model_provider"));
}

#[test]
fn a_later_setup_updates_what_is_ours() {
    let first = applied("a = 1\n", &forced());
    let second = applied(&first, &Wanted { port: 9000, model: Some("other".to_owned()), ..wanted() });
    let now = values(&second);
    assert_eq!(now["model"].as_str(), Some("other"));
    assert_eq!(now["model_providers"][PROVIDER_ID]["base_url"].as_str(), Some("http://127.0.0.1:9000/v1"));
    assert_eq!(now["model_providers"][PROVIDER_ID]["auth"]["args"][2].as_str(), Some("9000"));
    assert_eq!(restored(&second).text, "a = 1\n");
    // The proxy stays the default without being asked again, and the model as it is.
    let third = apply(Some(&second), &Wanted { model: None, ..wanted() }).unwrap();
    assert!(third.is_default);
    assert_eq!(third.model.as_deref(), Some("other"));
}

#[test]
fn the_demo_gives_way_to_the_first_real_model() {
    let found = |model: &str| Wanted { model: None, fallback_model: Some(model.to_owned()), ..wanted() };
    let demo = applied("", &found(DEMO));
    assert_eq!(applied(&demo, &found(DEMO)), demo);
    let real = applied(&demo, &found("mine"));
    assert_eq!(values(&real)["model"].as_str(), Some("mine"));
    assert_eq!(applied(&real, &found("other")), real, "only the demo does");
    // One that the user selected is a choice.
    let chosen = real.replace("\nmodel = \"mine\"", "\nmodel = \"demo\"");
    assert_eq!(applied(&chosen, &found("mine")), chosen);
    assert_eq!(restored(&real).text, "");
}

#[test]
fn a_model_chosen_since_is_the_users() {
    let text = applied("model = \"old\"\n", &forced()).replace("\nmodel = \"work\"", "\nmodel = \"theirs\"");
    let again = applied(&text, &Wanted { model: None, ..wanted() });
    assert_eq!(again, text);
    let gone = restored(&text);
    assert_eq!(gone.text, "# model = \"old\"\nmodel = \"theirs\"\n");
    assert!(gone.notes[0].contains("theirs"), "{:?}", gone.notes);
}

#[test]
fn a_tuned_provider_is_left_whole_and_keeps_its_value_over_a_setup() {
    let text = applied("", &wanted()).replace("stream_max_retries = 10\n", "stream_max_retries = 20 # slow net\n");
    let moved = apply(Some(&text), &Wanted { port: 9000, ..wanted() }).unwrap();
    let provider = &values(&moved.text)["model_providers"][PROVIDER_ID];
    assert_eq!(provider["stream_max_retries"].as_integer(), Some(20));
    assert_eq!(provider["base_url"].as_str(), Some("http://127.0.0.1:9000/v1"));
    assert!(moved.notes.iter().any(|note| note.contains("stream_max_retries")));
    let gone = restored(&moved.text);
    assert!(gone.text.contains("stream_max_retries = 20 # slow net"));
    assert!(values(&gone.text)["model_providers"][PROVIDER_ID]["auth"].get("command").is_some(), "Codex must start");
    assert!(!values(&gone.text).contains_key("model_provider"));
    assert!(!has_marks(&gone.text));
    assert!(gone.notes[0].contains("stream_max_retries"), "{:?}", gone.notes);
}

#[test]
fn a_provider_of_the_users_own_under_our_name_is_put_aside() {
    let spellings = [
        "[model_providers.codex-proxy] # old\nname = \"mine\"\n\n[model_providers.codex-proxy.http_headers]\nx = \"1\"\n[z]\na = 1\n",
        "[model_providers]\ncodex-proxy = { name = \"mine\" }\nother.name = \"o\"\n",
        "model_providers.codex-proxy.name = \"mine\"\nmodel_providers.\"codex-proxy\".query_params = { a = \"\"\"\nx\ny\n\"\"\" }\nz = 1\n",
        "model_provider = \"codex-proxy\"\n[model_providers.codex-proxy]\nname = \"mine\"",
    ];
    for text in spellings {
        for wanted in [wanted(), forced()] {
            let made = apply(Some(text), &wanted).unwrap();
            assert_eq!(values(&made.text)["model_providers"][PROVIDER_ID]["name"].as_str(), Some("codex-proxy"));
            assert!(made.notes.iter().any(|note| note.contains("put aside")));
            assert_eq!(restored(&made.text).text, text);
        }
    }
}

#[test]
fn what_cannot_be_put_aside_is_refused_with_its_line() {
    let error = apply(Some("a = 1\nmodel_providers = { x = { name = \"x\" } }\n"), &wanted()).unwrap_err();
    assert!(matches!(error, EditError::InTheWay { line: 2, .. }), "{error}");
    let error = apply(Some("model = 5\n"), &forced()).unwrap_err();
    assert!(matches!(error, EditError::InTheWay { line: 1, .. }), "{error}");
    let error = apply(Some("a = 1\nb = = 2\n"), &wanted()).unwrap_err();
    assert!(matches!(error, EditError::Invalid { line: 2, .. }), "{error}");
    assert!(matches!(restore("a = 1\na = 2\n").unwrap_err(), EditError::Invalid { line: 2, .. }));
}

#[test]
fn a_selection_written_by_hand_does_not_keep_codex_from_starting() {
    let text = format!("model_provider = \"codex-proxy\"\n{}", applied("", &Wanted { model: None, ..wanted() }));
    let gone = restored(&text);
    assert!(!values(&gone.text).contains_key("model_provider"));
    assert!(gone.text.contains("model_provider = \"codex-proxy\""), "kept as a comment");
    assert!(!has_marks(&gone.text));
}

#[test]
fn deleted_by_hand_is_written_anew_by_setup_and_not_missed_by_restore() {
    let text = applied("model = \"old\"\n", &forced());
    let cut: String = text.lines().filter(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(restored(&cut).text, "model = \"old\"\n");
    assert_eq!(values(&applied(&cut, &forced())), values(&text));
}

#[test]
fn what_looks_like_a_mark_inside_a_string_is_text() {
    let text = "a = \"\"\"\n# codex-proxyctl note: no\n# codex-proxyctl wrote model: \"x\"\n\"\"\"\n";
    assert!(!restored(text).found);
    assert_eq!(restored(&applied(text, &forced())).text, text);
}

#[test]
fn a_catalogue_file_is_mentioned() {
    let made = apply(Some("model_catalog_json = \"/x\"\n"), &wanted()).unwrap();
    assert!(made.notes[0].contains("model_catalog_json"));
}

fn root_line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "   ",
        "# a comment",
        "#:schema x",
        "#no blank",
        "\t# indented",
        "approval_policy = \"never\"",
        "  indented   =  1   # c",
        "\"quoted key\" = 'x'",
        "analytics.enabled = false",
        "list = [ 1,\n  # inside\n  2,\n]",
        "text = \"\"\"\nmodel = \"no\"\n\n[not.a.table]\n\"\"\"",
        "lit = '''\n# x'''",
        "model_providers.azure.name = \"a\"",
        "model_providers.codex-proxy.name = \"mine\"",
        "model_providers.codex-proxy = { name = \"mine\" }",
        "model_providers = { x = { name = \"x\" } }",
    ])
}

fn pair_line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "model = \"gpt-5\"",
        "model='gpt-5'#x",
        "  \"model\"  =  \"gpt-5\"  # mine",
        "model = \"\"\"\ngpt-5\"\"\"",
        "model_provider = \"azure\"",
        "model_provider=\"codex-proxy\" # by hand",
        "'model_provider' = 'openai'",
    ])
}

fn table() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "[features]\nweb = true",
        "[ mcp_servers . \"a b\" ] # t\ncommand = \"x\"\nargs = [\n \"y\", # z\n]",
        "[[hooks]]\na = 1\n[[hooks]]\na = 2",
        "[model_providers]",
        "[model_providers.azure]\nname = \"a\"\n\n# end",
        "[model_providers.codex-proxy]\nname = \"mine\"\n# in\nx = 1",
        "[model_providers.codex-proxy.http_headers]\na = \"b\"",
        "[model_providers.codex-proxy.auth]\ncommand = \"x\"",
        "[profiles.x]\nmodel_provider = \"codex-proxy\"",
        "# lonely\n",
        "",
        "[empty]",
    ])
}

prop_compose! {
    fn config()(
        bom in prop::bool::weighted(0.1),
        root in prop::collection::vec(prop_oneof![3 => root_line().boxed(), 2 => pair_line().boxed()], 0..6),
        tables in prop::collection::vec(table(), 0..5),
        crlf in prop::bool::weighted(0.3),
        last in prop::sample::select(vec!["", "\n", "\n\n", "\n# end"]),
    ) -> String {
        let mut text = root.into_iter().chain(tables).collect::<Vec<_>>().join("\n") + last;
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        if bom { format!("\u{feff}{text}") } else { text }
    }
}

fn wishes() -> impl Strategy<Value = Wanted> {
    (any::<bool>(), any::<bool>(), 1..u16::MAX).prop_map(|(default, model, port)| Wanted {
        port,
        model: (model || default).then(|| "work".to_owned()),
        default,
        ..wanted()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_global_rejects: 60_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn restore_gives_the_bytes_of_before(text in config(), wish in wishes(), later in wishes()) {
        prop_assume!(toml::from_str::<toml::Table>(&text).is_ok());
        let Ok(made) = apply(Some(&text), &wish) else { return Ok(()) };
        prop_assert_eq!(&restored(&made.text).text, &text);
        prop_assert_eq!(&applied(&made.text, &wish), &made.text);
        let moved = applied(&made.text, &later);
        prop_assert_eq!(&restored(&moved).text, &text);
    }

    #[test]
    fn what_codex_writes_in_between_survives(text in config(), wish in wishes()) {
        prop_assume!(toml::from_str::<toml::Table>(&text).is_ok());
        let Ok(made) = apply(Some(&text), &wish) else { return Ok(()) };
        // Codex edits through this very library.
        let codex_edit = |text: &str| {
            let mut document: toml_edit::DocumentMut = text.parse().unwrap();
            document["sandbox_mode"] = toml_edit::value("read-only");
            document["tools"]["new"] = toml_edit::value(true);
            document.to_string()
        };
        let gone = restored(&codex_edit(&made.text));
        prop_assert_eq!(values(&gone.text), values(&codex_edit(&text)));
        prop_assert!(!has_marks(&gone.text) || has_marks(&text));
        prop_assert!(gone.notes.iter().all(|note| note.contains("stood there before")), "{:?}", gone.notes);
    }
}

#[test]
fn what_setup_wrote_is_found_again_and_changes_to_it_are_named() {
    let text = applied("", &wanted());
    let found = inspect(&text).unwrap();
    assert!(found.present && found.selected && found.changed.is_empty() && !found.has_catalogue_file, "{found:?}");
    assert_eq!((found.port, found.token_port, found.name.as_deref()), (Some(8459), Some(8459), Some(PROVIDER_ID)));
    let tuned =
        text.replace("127.0.0.1:8459/v1\"\n", "localhost:1\"\n").replace("model = \"work\"\n", "model = \"x\"\n");
    let found = inspect(&tuned).unwrap();
    assert_eq!((found.port, found.changed), (None, vec!["base_url".to_owned(), "model".to_owned()]));
    assert!(!inspect("").unwrap().present);
    assert!(inspect("a = = 1").is_err());
}
