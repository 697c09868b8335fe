//! Pictures that are whole and yet look wrong: black among others, or the same as the one before in a moving scene.
//!
//! After Effects writes such frames without a word when footage, graphics or memory fail it. A template may want
//! them, too. So they are rendered once more: what comes out alike is what the template says, and is accepted with
//! a warning; what comes out otherwise replaces the first.

use super::classes::{BLANK_FRAMES, DUPLICATE_FRAMES};
use flatrender_workflows::contracts::storage::BlobHash;
use std::collections::{BTreeMap, BTreeSet};

/// Frame → hash of its file, and whether it is blank.
pub type Pictures = BTreeMap<u32, (BlobHash, bool)>;

/// A scene in which one picture in so many stands still is not a moving one.
const MOVING_PER_STILL: usize = 4;
/// Blank frames or doubles named in a warning.
const NAMED: usize = 5;

/// Frames to be rendered once more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    blank: BTreeMap<u32, BlobHash>,
    double: BTreeMap<u32, BlobHash>,
}

impl Doubts {
    /// What looks wrong in the pictures of one range, of which nobody says where in a film it lies.
    pub fn of(pictures: Pictures) -> Self {
        Self::within(pictures, None)
    }

    /// What looks wrong in the pictures of one range of a film with so many frames.
    pub fn within(pictures: Pictures, film_frames: Option<u32>) -> Self {
        let frames: Vec<(u32, &BlobHash, bool)> =
            pictures.iter().map(|(f, (hash, blank))| (*f, hash, *blank)).collect();
        let pick = |indices: Vec<usize>| indices.into_iter().map(|i| (frames[i].0, frames[i].1.clone())).collect();
        Self { blank: pick(blanks(&frames, film_frames)), double: pick(doubles(&frames)) }
    }

    /// Whether nothing looks wrong.
    pub fn is_empty(&self) -> bool {
        self.blank.is_empty() && self.double.is_empty()
    }

    /// The frames that look wrong.
    pub fn frames(&self) -> BTreeSet<u32> {
        self.blank.keys().chain(self.double.keys()).copied().collect()
    }

    /// Warnings for those that came out alike when they were rendered again.
    pub fn confirmed_by(&self, again: &Pictures) -> Vec<String> {
        let alike = |doubted: &BTreeMap<u32, BlobHash>| {
            let same = doubted.iter().filter(|(frame, hash)| again.get(frame).is_some_and(|(h, _)| h == *hash));
            same.map(|(frame, _)| frame.to_string()).collect::<Vec<_>>()
        };
        let classes = [(BLANK_FRAMES, alike(&self.blank)), (DUPLICATE_FRAMES, alike(&self.double))];
        let noted = classes.into_iter().filter(|(_, frames)| !frames.is_empty());
        noted.map(|(class, frames)| format!("{} ({})", class.note(), named(&frames))).collect()
    }
}

/// Blank pictures between others, or all of them. At an end of the film they are how videos begin and end; where nobody says which ends
/// are the film's, both may be.
fn blanks(frames: &[(u32, &BlobHash, bool)], film_frames: Option<u32>) -> Vec<usize> {
    let lit: Vec<usize> = (0..frames.len()).filter(|i| !frames[*i].2).collect();
    let (Some(first), Some(last)) = (lit.first(), lit.last()) else { return (0..frames.len()).collect() };
    let begins = film_frames.is_none() || frames.first().is_some_and(|(frame, ..)| *frame == 0);
    let ends = film_frames.is_none_or(|all| frames.last().is_some_and(|(frame, ..)| frame + 1 >= all));
    let (from, to) = (if begins { *first } else { 0 }, if ends { *last } else { frames.len() });
    (from..to).filter(|i| frames[*i].2).collect()
}

/// Pictures that repeat the one before while all around them move. What lies between two that do not follow each other is not known.
fn doubles(frames: &[(u32, &BlobHash, bool)]) -> Vec<usize> {
    let follows = |i: usize| i > 0 && i < frames.len() && frames[i].0 == frames[i - 1].0 + 1;
    let still = |i: usize| follows(i) && frames[i].1 == frames[i - 1].1;
    let found: Vec<usize> = (0..frames.len()).filter(|i| still(*i) && !frames[*i].2).collect();
    let lone = found.iter().all(|i| !still(i - 1) && !still(i + 1));
    if lone && found.len() * MOVING_PER_STILL <= frames.len() { found } else { Vec::new() }
}

fn named(frames: &[String]) -> String {
    let more = if frames.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", frames[..frames.len().min(NAMED)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A letter a picture; `.` is a blank one.
    fn pictures(drawn: &str) -> Pictures {
        let picture = |(n, c): (usize, char)| (n as u32, (BlobHash::of(c.to_string().as_bytes()), c == '.'));
        drawn.chars().enumerate().map(picture).collect()
    }

    fn doubted(drawn: &str) -> Vec<u32> {
        Doubts::of(pictures(drawn)).frames().into_iter().collect()
    }

    #[test]
    fn blank_pictures_among_others_are_doubted() {
        assert_eq!(doubted("ab.cd"), [2]);
        assert_eq!(doubted("ab..cd.e"), [2, 3, 6]);
        assert_eq!(doubted("...ab.."), [0; 0], "videos begin and end so");
        assert_eq!(doubted("...."), [0, 1, 2, 3], "but not whole parts of them");
        assert_eq!(doubted("."), [0]);
    }

    #[test]
    fn only_at_the_ends_of_a_film_blank_pictures_are_how_it_begins_and_ends() {
        let doubted = |drawn: &str, first: u32, film: u32| -> Vec<u32> {
            let moved = pictures(drawn).into_iter().map(|(frame, picture)| (first + frame, picture)).collect();
            Doubts::within(moved, Some(film)).frames().into_iter().collect()
        };
        assert_eq!(doubted("..abc.d..", 0, 9), [5], "a film that is one chunk");
        assert_eq!(doubted("..abc..", 0, 30), [5, 6], "the first chunk");
        assert_eq!(doubted("..abc..", 10, 30), [10, 11, 15, 16], "one in the middle");
        assert_eq!(doubted("..abc..", 23, 30), [23, 24], "the last");
        assert_eq!(doubted("....", 10, 30), [10, 11, 12, 13]);
    }

    #[test]
    fn a_lone_double_in_a_moving_scene_is_doubted() {
        assert_eq!(doubted("abccdefg"), [3]);
        assert_eq!(doubted("aabcdefg"), [1]);
        assert_eq!(doubted("abcddddefgh"), [0; 0], "it stands still on purpose");
        assert_eq!(doubted("aabbccdd"), [0; 0], "it runs at half the rate");
        let mut gap = pictures("abcdeefgh");
        gap.remove(&4);
        gap.insert(3, (BlobHash::of(b"e"), false));
        assert!(Doubts::of(gap).is_empty(), "what lay between two that are alike is not there to be seen");
        assert_eq!(doubted("aa"), [0; 0]);
        assert_eq!(doubted(""), [0; 0]);
    }

    #[test]
    fn what_comes_out_alike_is_warned_of_and_what_does_not_is_forgotten() {
        let doubts = Doubts::of(pictures("ab.cdefggh"));
        let warnings = doubts.confirmed_by(&pictures("ab.cdefggh"));
        assert!(warnings[0].starts_with("render.blank_frames") && warnings[0].ends_with("(2)"), "{warnings:?}");
        assert!(warnings[1].starts_with("render.duplicate_frames") && warnings[1].ends_with("(8)"), "{warnings:?}");
        assert_eq!(doubts.confirmed_by(&pictures("abxcdefgyh")), [""; 0]);
    }
}
