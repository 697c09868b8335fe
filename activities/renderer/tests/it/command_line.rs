//! aerender's grammar, order, lines and exit codes.

use serde_json::json;

use crate::world::{Package, document, moving_square, solid};

fn package() -> Package {
    Package::new(&document(json!([moving_square(), solid("back", "#ffffff", 0, 10)])))
}

#[test]
fn a_mistake_in_the_grammar_wins_over_a_bad_project() {
    let run = package().run(&["-project", "/nowhere", "-comp", "main", "-bogus"]);
    assert_eq!((run.code, run.text.as_str()), (3, "aerender SYNTAX ERROR: Illegal argument flag: -bogus\n"));
    let run = package().run(&["-project"]);
    assert_eq!((run.code, run.text.as_str()), (3, "aerender SYNTAX ERROR: no value given for flag: -project\n"));
}

#[test]
fn help_is_usage_and_exit_code_2() {
    let run = package().run(&["-help"]);
    assert_eq!(run.code, 2);
    assert!(run.text.starts_with("aerender USAGE:"));
}

#[test]
fn version_is_one_line() {
    let run = package().run(&["-version"]).ok();
    assert!(run.text.starts_with("aerender version ") && run.text.lines().count() == 1, "{}", run.text);
}

#[test]
fn what_is_asked_for_and_not_there_is_exit_code_7() {
    let package = package();
    let root = package.root();
    let project = root.to_str().unwrap();
    let facts: [(&[&str], &str); 8] = [
        (&["-comp", "main"], "[render.project_not_found] No project provided and no project open."),
        (&["-project", "/nowhere", "-comp", "main"], "[render.project_not_found] cannot open project /nowhere"),
        (&["-project", project, "-comp", "mian"], "[render.comp_not_found] No comp was found with the given name."),
        (&["-project", project, "-rqindex", "7"], "[render.comp_not_found] No render queue item was found"),
        (
            &["-project", project, "-comp", "main", "-RStemplate", "Nice"],
            "[render.template_not_found] No render settings template was found with the given name.",
        ),
        (
            &["-project", project, "-comp", "main", "-OMtemplate", "Lossless"],
            "[render.template_not_found] No output module template was found with the given name.",
        ),
        (
            &["-project", project, "-comp", "main"],
            "[render.no_output] Specified render queue item needs output file but none provided.",
        ),
        (&["-project", project, "-output", "a.png"], "[render.no_output] "),
    ];
    for (arguments, message) in facts {
        let run = package.run(arguments);
        let (code, error) = run.failure();
        assert!(code == 7 && error.starts_with(message), "{arguments:?}: {code} {error}");
    }
}

#[test]
fn a_frame_beyond_the_composition_is_an_error_and_no_blank_picture() {
    for range in [["-s", "9", "-e", "10"], ["-s", "-1", "-e", "3"], ["-s", "5", "-e", "4"]] {
        let run = package().render(&range);
        let (code, error) = run.failure();
        assert!(code == 7 && error.starts_with("[render.frame_out_of_range]"), "{error}");
        assert!(run.files().is_empty());
    }
}

#[test]
fn an_increment_is_checked_after_the_composition() {
    assert!(package().render_comp("mian", &["-i", "0"]).failure().1.starts_with("[render.comp_not_found]"));
    assert!(package().render(&["-i", "101"]).failure().1.starts_with("[render.frame_out_of_range]"));
}

#[test]
fn the_log_of_a_run_reads_as_aerender_s() {
    let run = package().render(&["-s", "2", "-e", "4"]).ok();
    assert!(run.text.starts_with("aerender version "));
    run.line("PROGRESS: Adding specified comp to Render Queue");
    assert!(run.text.contains(": Starting composition “main”.\n\n\nPROGRESS:  Render Settings: Best Settings\n"));
    let facts = [
        ("Size: ", "160 x 90"),
        ("Start: ", "0:00:00:02"),
        ("End: ", "0:00:00:04"),
        ("Duration: ", "0:00:00:03"),
        ("Frame Rate: ", "10.00 (comp)"),
        ("Output Module: ", "PNG Sequence"),
    ];
    for (label, value) in facts {
        assert_eq!(run.line(&format!("PROGRESS:  {label}")), value);
    }
    let frames: Vec<&str> = run.text.lines().filter(|line| line.contains("): ")).collect();
    let expected = [
        "PROGRESS:  0:00:00:02 (1): 0 Seconds",
        "PROGRESS:  0:00:00:03 (2): 0 Seconds",
        "PROGRESS:  0:00:00:04 (3): 0 Seconds",
    ];
    assert_eq!(frames, expected, "the ordinal counts from 1, the time code is the frame's");
    assert!(run.text.contains(": Finished composition “main”.\n"));
    assert_eq!(run.line("PROGRESS:  Total Time Elapsed: "), "0 Seconds");
}

#[test]
fn errors_only_is_quiet() {
    let run = package().render(&["-v", "ERRORS"]).ok();
    assert_eq!(run.text.lines().count(), 1, "{}", run.text);
    assert_eq!(run.files().len(), 10);
}

#[test]
fn a_log_file_takes_the_lines_and_changes_the_exit_code() {
    let package = package();
    let log = package.root().join("render.log");
    let run = package.render_comp("mian", &["-log", log.to_str().unwrap()]);
    assert_eq!((run.code, run.text.lines().count()), (8, 1));
    assert!(std::fs::read_to_string(log).unwrap().contains("aerender ERROR: [render.comp_not_found]"));
}

#[test]
fn a_log_file_in_no_folder_is_an_error() {
    assert_eq!(package().render(&["-log", "/nowhere/at/all.log"]).code, 4);
}

#[test]
fn an_absent_output_folder_is_an_error_before_the_render() {
    let package = package();
    let root = package.root();
    let run = package.run(&["-project", root.to_str().unwrap(), "-comp", "main", "-output", "/nowhere/a.png"]);
    let (code, error) = run.failure();
    assert!(code == 9 && error.starts_with("[render.output_unwritable]"), "{error}");
    assert!(!run.text.contains("Starting composition"));
}

#[test]
fn accepted_flags_change_nothing() {
    let more = "-mem_usage 50 80 -sound on -close SAVE_CHANGES -reuse -mfr ON 50 -RStemplate".split(' ');
    let more: Vec<&str> =
        more.chain(["Draft Settings", "-OMtemplate", "PNG Sequence", "-continueOnMissingFootage"]).collect();
    assert_eq!(package().render(&more).ok().files().len(), 10);
}

#[test]
fn nothing_to_render_says_which_arguments_it_ignored() {
    let package = package();
    let root = package.root();
    let run = package.run(&["-project", root.to_str().unwrap(), "-output", "a.png", "-s", "1"]);
    run.line("WARNING: -output argument ignored since no -comp  or -rqindex provided.");
    run.line("WARNING: -s and/or -e argument ignored since no -comp  or -rqindex provided.");
}
