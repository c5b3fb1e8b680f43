//! Cases that once went wrong, as they were shrunk.

use super::deeds::Case;
use super::deeds::Deed;
use super::deeds::Local;
use super::deeds::Remote;
use super::deeds::When;
use super::twice::holds;

fn file(parent: u8, name: u8) -> Deed {
    Deed::File { parent, name, same: false }
}

fn folder(parent: u8, name: u8) -> Deed {
    Deed::Folder { parent, name }
}

fn relocate(entry: u8, parent: u8, name: u8) -> Deed {
    Deed::Move { entry, parent, name }
}

fn write(entry: u8) -> Deed {
    Deed::Write { entry, same: false }
}

fn remove(entry: u8) -> Deed {
    Deed::Remove { entry }
}

fn here(deed: Deed) -> Local {
    Local { when: When::Before, deed, slow: false, open: false }
}

fn there(deed: Deed) -> Remote {
    Remote { when: When::Before, deed, joined: false }
}

/// Everything in one page.
fn case(base: Vec<Deed>, remote: Vec<Remote>, local: Vec<Local>) -> Case {
    Case { base, remote, local, rows: 500, pages: 50 }
}

#[test]
fn a_folder_that_comes_back_has_the_attributes_that_the_server_knows() {
    let base = vec![folder(0, 0), folder(0, 1)];
    let local = vec![here(folder(1, 0)), here(remove(0))];
    holds(&case(base, vec![there(folder(1, 0))], local));
}

#[test]
fn what_was_written_to_a_file_and_removed_with_it_does_not_come_back_without_an_intent() {
    let base = vec![folder(0, 1), file(5, 2), Deed::Link { entry: 5, parent: 1, name: 1 }];
    let open = Local { open: true, ..here(write(2)) };
    let local = vec![here(folder(5, 0)), open, here(remove(0))];
    holds(&case(base, vec![there(relocate(1, 1, 0))], local));
}

#[test]
fn an_edit_survives_where_one_page_tells_where_from_and_the_next_where_to_and_what() {
    let written = Remote { joined: true, ..there(write(0)) };
    let remote = vec![there(relocate(0, 0, 0)), there(relocate(0, 0, 1)), written];
    let base = vec![file(0, 2)];
    holds(&Case { rows: 1, ..case(base, remote, vec![here(write(0))]) });
}

#[test]
fn a_file_edited_here_and_moved_there_is_not_one_with_what_was_made_in_its_new_place() {
    let same = Deed::File { parent: 0, name: 0, same: true };
    let base = vec![same, relocate(0, 0, 2)];
    holds(&case(base, vec![there(relocate(0, 0, 0))], vec![here(same), here(write(1))]));
}

#[test]
fn what_was_edited_there_comes_back_into_a_folder_of_the_same_page() {
    let pulled = |deed| Local { when: When::Pulled, ..here(deed) };
    let sent = |deed| Local { when: When::Sent, ..here(deed) };
    let base = vec![file(0, 0), folder(0, 1), folder(0, 2), remove(1)];
    let remote = vec![there(remove(5)), Remote { when: When::Pulled, ..there(write(0)) }];
    let local = vec![
        pulled(relocate(5, 1, 0)),
        here(remove(1)),
        here(relocate(0, 0, 3)),
        sent(remove(2)),
        here(folder(0, 0)),
    ];
    holds(&case(base, remote, local));
}

#[test]
fn a_folder_moved_on_both_sides_settles_when_the_page_comes_that_tells_where_to() {
    let remote = vec![there(relocate(0, 2, 2)), there(relocate(0, 2, 1))];
    let half = Case { rows: 1, pages: 1, ..case(vec![folder(0, 0)], remote, Vec::new()) };
    holds(&Case { local: vec![here(relocate(0, 2, 1))], ..half });
}

#[test]
fn a_folder_made_here_that_is_one_with_a_moved_one_keeps_in_mind_what_was_removed_from_that() {
    holds(&case(
        vec![folder(0, 2), file(1, 0), file(2, 0), relocate(3, 1, 1)],
        vec![there(relocate(10, 2, 0)), there(relocate(1, 2, 1))],
        vec![here(remove(0)), here(folder(0, 0)), here(relocate(0, 2, 1)), here(folder(1, 1))],
    ));
}
