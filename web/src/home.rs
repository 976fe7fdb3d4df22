//! The home page: what one uses of what one may, what needs one, what goes on and went on; for those
//! who oversee the machine, the machine now.

use askama::Template;

use crate::containers::Row;
use crate::format::Moment;
use crate::parts::{Act, Badge, Meter};
use crate::shell::Shell;

/// Where signing in leads.
#[derive(Debug, Clone, Template)]
#[template(path = "home.html")]
pub struct HomePage {
    /// The frame.
    pub shell: Shell,
    /// Whether the viewer may launch and pull.
    pub acts: bool,
    /// What the viewer's containers use of what they may.
    pub readouts: Vec<Meter>,
    /// What needs the viewer, the gravest first.
    pub needs: Vec<Need>,
    /// How many more need them than are shown.
    pub needs_more: usize,
    /// What runs.
    pub rows: Vec<Row>,
    /// How many more run than are shown.
    pub rows_more: usize,
    /// Operations under way.
    pub tasks: Vec<Task>,
    /// What happened last, the newest first.
    pub happened: Vec<Happened>,
    /// Where all that happened is listed; empty while there is no such page.
    pub happened_path: String,
    /// The machine; none for whom it is no concern of.
    pub machine: Option<MachineNow>,
    /// What to do first; none once a container exists.
    pub first: Option<FirstSteps>,
}

/// Something that needs the viewer.
#[derive(Debug, Clone, Default)]
pub struct Need {
    /// Its place in the list, for the script.
    pub id: String,
    /// What is the matter.
    pub state: Badge,
    /// With what.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// What may be done at once.
    pub act: Option<Act>,
}

/// An operation under way.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// The operation.
    pub id: String,
    /// What it does.
    pub title: String,
    /// Whose it is, where that is not the viewer.
    pub owner: String,
    /// 0 to 100; none while unknown.
    pub percent: Option<u8>,
    /// How far it is, in words.
    pub text: String,
    /// Where its cancel is posted.
    pub cancel: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// Its number.
    pub id: String,
    /// When.
    pub at: Moment,
    /// What, with its sign.
    pub what: Badge,
    /// With what.
    pub name: String,
    /// Where that is; empty when it is gone.
    pub path: String,
    /// Whose it is, where that is not the viewer.
    pub owner: String,
}

/// What to do first.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstSteps {
    /// Whether there is an image already.
    pub has_image: bool,
    /// Whether the viewer adds people, and is alone.
    pub adds_people: bool,
}

/// The machine now.
#[derive(Debug, Clone, Default)]
pub struct MachineNow {
    /// Processor, memory, disk, pressure.
    pub readouts: Vec<Meter>,
    /// Up since, and the like; a line of words.
    pub note: String,
    /// Who uses how much of it, most memory first.
    pub people: Vec<PersonShare>,
    /// How many more there are.
    pub people_more: u64,
    /// The bars over all of it: processor, then memory.
    pub bars: Vec<Stack>,
}

/// One person's share of the machine.
#[derive(Debug, Clone, Default)]
pub struct PersonShare {
    /// Their number.
    pub id: String,
    /// Their name.
    pub name: String,
    /// Their page; empty where there is none.
    pub path: String,
    /// Their hue in the bars, 1 to 6; 0 for the rest together.
    pub hue: usize,
    /// Their containers, `3 of 5 run`.
    pub containers: String,
    /// Processor use.
    pub cpu: Meter,
    /// Memory use.
    pub memory: Meter,
    /// Their images, `12 GiB`.
    pub images: String,
}

/// A bar of shares of one whole.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// Of what.
    pub label: &'static str,
    /// In words, for those who don't see the bar.
    pub summary: String,
    /// The segments: hue and share in thousandths.
    pub parts: Vec<(usize, u32)>,
}

impl Stack {
    /// The segments with the place where each begins.
    pub(crate) fn placed(&self) -> Vec<(usize, u32, u32)> {
        let mut at = 0_u32;
        let place = |&(hue, share): &(usize, u32)| {
            let from = at;
            at = at.saturating_add(share);
            (hue, from, share)
        };
        self.parts.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stand_one_after_the_other() {
        let stack = Stack { parts: vec![(1, 300), (2, 50), (0, 20)], ..Stack::default() };
        assert_eq!(stack.placed(), [(1, 0, 300), (2, 300, 50), (0, 350, 20)]);
    }
}
