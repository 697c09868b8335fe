//! The production shape on one machine, as `compose.yaml` has it.

use std::collections::BTreeMap;

const COMPOSE: &str = include_str!("../../../compose.yaml");

/// The services by their names, each as it is written.
fn services() -> BTreeMap<&'static str, String> {
    let all = COMPOSE.split("\nservices:\n").nth(1).unwrap().split("\nvolumes:\n").next().unwrap();
    let (mut services, mut name) = (BTreeMap::<_, String>::new(), "");
    for line in all.lines() {
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '#'])) {
            Some(begun) => name = begun.trim_end_matches(':'),
            None => services.entry(name).or_default().extend([line, "\n"]),
        }
    }
    services
}

#[test]
fn every_part_that_stays_up_says_how_it_fares() {
    let services = services();
    assert!(services.len() >= 7, "{:?}", services.keys());
    for (name, service) in services {
        // These do what they have to, and end.
        let ends = ["migrate", "s3-bucket"].contains(&name);
        assert_eq!(service.contains("    healthcheck:\n"), !ends, "{name}");
    }
}

#[test]
fn nothing_has_a_password_that_everybody_knows() {
    let secret = |name: &str| ["PASSWORD", "SECRET", "KEY", "TOKEN"].into_iter().any(|word| name.contains(word));
    let mut seen = 0;
    for (name, value) in COMPOSE.lines().filter_map(|line| line.trim().split_once(": ")) {
        if secret(name) && !name.starts_with('#') {
            assert!(value.contains(":?") || value.ends_with(":-}"), "{name} has a value of its own: {value}");
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
    // What is empty is refused where it would open something: a store without keys has those of its makers.
    let s3 = &services()["s3"];
    for name in ["MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"] {
        assert!(s3.contains(&format!("[ -n \\\"$${name}\\\" ]")), "{name}: {s3}");
    }
}
