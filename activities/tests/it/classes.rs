//! Every class of failure can be led to, or says who sees it instead.

use crate::{transcripts, verdicts};
use flatrender_activities::{
    aerender::{
        account,
        classes::{CATALOGUE, OTHERS, Told, by_code},
        silence::Silence,
    },
    agent::fonts,
};
use flatrender_workflows::contracts::evidence::Evidence;
use std::collections::BTreeSet;

/// Codes that a look at the machine leads to.
fn seen() -> BTreeSet<&'static str> {
    let silent = |dialog: Option<&str>, has_desktop| {
        Silence::told(dialog.map(str::to_owned), Some(has_desktop)).unwrap().class.code
    };
    let missing = by_code("render.missing_font").unwrap();
    let futura = vec!["Futura-Medium".to_owned()];
    let evidence = Evidence { objects: futura.clone(), ..Evidence::bare(missing.code, missing.number, missing.cure) };
    let failure = account::of(missing, "Futura-Medium".to_owned(), evidence);
    let font = by_code(&fonts::explained_by(failure, || BTreeSet::from_iter(futura)).code).unwrap().code;
    // The colours of a probe are those of `probe::wrong_colours_numbers_and_endings_are_each_found_with_what_to_do`.
    BTreeSet::from([silent(None, false), silent(Some("Crash Repair Options"), true), font, "node.other_pixels"])
}

#[test]
fn every_class_has_a_scenario_transcript_or_sight_that_leads_to_it_or_a_reason_why_none_can() {
    let led_to: BTreeSet<_> = [verdicts::codes(), transcripts::codes(), seen()].into_iter().flatten().collect();
    for class in CATALOGUE.iter().chain(&OTHERS) {
        match class.told {
            Told::Elsewhere(reason) => {
                assert!(reason.split(' ').count() >= 5, "{}", class.code);
                assert!(!led_to.contains(class.code), "{} is told after all", class.code);
            }
            _ => assert!(led_to.contains(class.code), "nothing leads to {}", class.code),
        }
    }
    let known = |code: &str| CATALOGUE.iter().chain(&OTHERS).any(|c| c.code == code);
    assert!(led_to.into_iter().all(known), "every verdict is a class");
}
