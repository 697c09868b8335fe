//! Every class of failure can be led to, or says who sees it instead.

use crate::{transcripts, verdicts};
use flatrender_activities::aerender::classes::{CATALOGUE, OTHERS, Told};
use std::collections::BTreeSet;

#[test]
fn every_class_has_a_scenario_or_transcript_that_leads_to_it_or_a_reason_why_none_can() {
    let led_to: BTreeSet<_> = verdicts::codes().union(&transcripts::codes()).copied().collect();
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
