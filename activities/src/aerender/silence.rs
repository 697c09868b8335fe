//! Why After Effects was started and has said nothing, as far as the machine shows it: a dialog waits for somebody, or nobody could see one.

use super::{
    classes::{Class, DIALOG, NO_DESKTOP},
    process::{Tree, census},
};
use flatrender_engine::Failure;

/// Longest title of a dialog that is repeated, in characters.
const TITLE_CHARS: usize = 200;

/// What keeps it silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// The class.
    pub class: Class,
    /// What was seen.
    pub seen: String,
}

impl Silence {
    /// What keeps the processes of a tree silent; none when nothing is seen.
    pub fn of(tree: &Tree) -> Option<Self> {
        Self::told(tree.dialog(), census::has_desktop())
    }

    /// By the title of a dialog that is open, and by whether there is a desktop to open one on.
    pub fn told(dialog: Option<String>, has_desktop: Option<bool>) -> Option<Self> {
        match (dialog, has_desktop) {
            (Some(title), _) => {
                let seen = title.chars().filter(|c| !c.is_control()).take(TITLE_CHARS).collect();
                Some(Self { class: DIALOG, seen })
            }
            (None, Some(false)) => Some(Self { class: NO_DESKTOP, seen: "this session has no desktop".to_owned() }),
            (None, _) => None,
        }
    }

    /// Why there are no frames.
    pub fn failure(&self) -> Failure {
        Failure::transient(self.class.code, format!("{}: {}", self.class.message, self.seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_that_is_open_and_a_session_without_a_desktop_tell_why_nothing_is_said() {
        let told = |dialog: Option<&str>, desktop| {
            let told = Silence::told(dialog.map(str::to_owned), desktop).map(|silence| silence.failure());
            told.map(|failure| (failure.code, failure.message.rsplit(": ").next().unwrap().to_owned()))
        };
        let code_and = |code: &str, seen: &str| Some((code.to_owned(), seen.to_owned()));
        assert_eq!(told(Some("Crash\u{7} Repair"), Some(true)), code_and("node.dialog", "Crash Repair"));
        assert_eq!(told(Some("What's New"), None), code_and("node.dialog", "What's New"));
        assert_eq!(told(Some("What's New"), Some(false)), code_and("node.dialog", "What's New"), "it was seen");
        assert_eq!(told(None, Some(false)), code_and("node.no_desktop", "this session has no desktop"));
        assert_eq!((told(None, Some(true)), told(None, None)), (None, None));
    }
}
