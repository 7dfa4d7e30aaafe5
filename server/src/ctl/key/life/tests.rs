//! The life of a key's generations, by a clock that the tests set.

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: u64 = 3_600_000;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn after(hours: u64) -> Timestamp {
    Timestamp(NOW.0 + hours * HOUR)
}

fn ago(hours: u64) -> Timestamp {
    Timestamp(NOW.0 - hours * HOUR)
}

fn new(number: u32) -> Generation {
    Generation::generate(number, NOW).unwrap()
}

/// A generation with its end, and whether it was used.
fn known(number: u32, not_after: Option<Timestamp>, is_used: bool) -> Known {
    Known {
        generation: Generation {
            not_after,
            ..new(number)
        },
        used: GenerationUse {
            last: is_used.then_some(ago(1)),
            ..GenerationUse::default()
        },
    }
}

fn numbers_and_ends(generations: &[Generation]) -> Vec<(u32, Option<Timestamp>)> {
    generations.iter().map(|g| (g.number, g.end())).collect()
}

fn rotated(life: Vec<Known>, number: u32) -> Vec<(u32, Option<Timestamp>)> {
    let all = Life(life).rotate(new(number), Some(WEEK), Limit::Inherited, NOW);
    numbers_and_ends(&all.unwrap())
}

#[test]
fn states_follow_the_clock_and_what_was_brought_forward() {
    let mut life = Life(vec![
        known(1, Some(ago(1)), true),
        known(2, Some(after(9)), true),
        known(3, None, true),
    ]);
    assert_eq!(life.state(0, NOW), State::Expired(ago(1)));
    assert_eq!(life.state(1, NOW), State::Retiring(after(9)));
    assert_eq!(life.state(2, NOW), State::Active(None));
    life.0[1].used.retires = Some(after(2));
    assert_eq!(life.state(1, NOW), State::Retiring(after(2)));
    life.0[2].generation.not_before = Some(after(1));
    assert_eq!(life.state(2, NOW), State::NotYet(after(1)));
    assert_eq!(life.state(2, after(1)), State::Active(None));
}

#[test]
fn a_rotation_leaves_the_old_its_overlap() {
    let week = Some(after(168));
    assert_eq!(
        rotated(vec![known(1, None, true)], 2),
        [(1, week), (2, None)]
    );
    // Also one that was never used: its holder may be about to.
    assert_eq!(
        rotated(vec![known(1, None, false)], 2),
        [(1, week), (2, None)]
    );
}

#[test]
fn a_second_rotation_drops_what_was_never_used_and_nothing_else() {
    let week = Some(after(168));
    let first = |is_used| {
        let mut old = known(1, None, true);
        old.generation.overlap_until = Some(after(5));
        vec![old, known(2, None, is_used)]
    };
    assert_eq!(rotated(first(false), 3), [(1, week), (3, None)]);
    let want = [(1, Some(after(5))), (2, week), (3, None)];
    assert_eq!(rotated(first(true), 3), want);
    // The state was lost, and still knows that the first retires.
    let mut retiring = first(false);
    retiring[0].used.retires = Some(after(4));
    assert_eq!(rotated(retiring, 3), want);
    // Nothing else works.
    let alone = vec![known(1, Some(ago(5)), true), known(2, None, false)];
    assert_eq!(rotated(alone, 3), [(1, Some(ago(5))), (2, week), (3, None)]);
}

#[test]
fn a_rotation_drops_all_that_nobody_used_since_the_newest_that_somebody_did() {
    // The client's rotation before has ended the first, which had begun to retire.
    let life = || {
        let mut first = known(1, Some(ago(1)), true);
        first.used.retires = Some(after(9));
        let mut second = known(2, None, true);
        second.generation.overlap_until = Some(after(5));
        let third = known(3, None, false);
        vec![first, second, third, known(4, None, false)]
    };
    let want = |number| [(1, Some(ago(1))), (2, Some(after(168))), (number, None)];
    assert_eq!(rotated(life(), 5), want(5));
    let three = life().into_iter().take(3).collect();
    assert_eq!(rotated(three, 4), want(4));
    // The second retires, so that a newer one was used, and the state has lost which.
    let mut lost = life();
    lost[1].used.retires = Some(after(4));
    assert_eq!(rotated(lost, 5).len(), 5);
    // Where no use at all is known, the older may be in use as well.
    let mut unknown = life();
    for known in &mut unknown {
        known.used = GenerationUse::default();
    }
    let numbers: Vec<u32> = rotated(unknown, 5).iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2, 3, 5]);
}

#[test]
fn a_new_generation_outlives_no_limit_of_the_old_unless_it_is_said() {
    let limited = || vec![known(1, Some(after(50)), true)];
    let want = [(1, Some(after(50))), (2, Some(after(50)))];
    assert_eq!(rotated(limited(), 2), want);
    let mut second = limited();
    second[0].generation.overlap_until = Some(after(9));
    second.push(known(2, Some(after(50)), false));
    assert_eq!(
        rotated(second, 3),
        [(1, Some(after(50))), (3, Some(after(50)))]
    );
    let free = Life(limited()).rotate(new(2), Some(WEEK), Limit::Until(None), NOW);
    assert_eq!(
        numbers_and_ends(&free.unwrap()),
        [(1, Some(after(50))), (2, None)]
    );
    let ended = Life(vec![known(1, Some(ago(1)), true)]);
    assert_eq!(
        ended.rotate(new(2), Some(WEEK), Limit::Inherited, NOW),
        Err(NotRotated::Ended)
    );
}

#[test]
fn no_rotation_moves_a_generations_own_end() {
    let mut life = vec![known(1, Some(after(24)), true)];
    for number in 2..5 {
        let all = Life(life).rotate(new(number), Some(WEEK), Limit::Until(None), NOW);
        let all = all.unwrap();
        let want = [(1, Some(after(24))), (number, None)];
        assert_eq!(numbers_and_ends(&all), want);
        let mut again = all.into_iter().map(|generation| Known {
            used: GenerationUse::default(),
            generation,
        });
        life = vec![again.next().unwrap(), again.next().unwrap()];
        life[0].used.last = Some(NOW);
    }
}

/// A generation that begins in so many hours.
fn to_come(number: u32, hours: u64) -> Known {
    let mut known = known(number, None, false);
    known.generation.not_before = Some(after(hours));
    known
}

#[test]
fn a_key_that_is_not_valid_yet_opens_no_sooner_by_a_rotation() {
    let begins =
        |all: &[Generation]| -> Vec<_> { all.iter().map(|g| (g.number, g.not_before)).collect() };
    let rotate = |life: Vec<Known>, number| {
        let all = Life(life).rotate(new(number), Some(WEEK), Limit::Inherited, NOW);
        all.unwrap()
    };
    let all = rotate(vec![to_come(1, 48)], 2);
    assert_eq!(begins(&all), [(1, Some(after(48))), (2, Some(after(48)))]);
    // The overlap begins when the key does.
    let week = Some(after(48 + 168));
    assert_eq!(numbers_and_ends(&all), [(1, week), (2, None)]);
    let known = |generation| Known {
        generation,
        used: GenerationUse::default(),
    };
    let second = rotate(all.into_iter().map(known).collect(), 3);
    assert_eq!(numbers_and_ends(&second), [(1, week), (3, None)]);
    let leaked = Life(vec![to_come(1, 48)]).rotate(new(2), None, Limit::Inherited, NOW);
    assert_eq!(begins(&leaked.unwrap()), [(2, Some(after(48)))]);
    let first = Limit::Until(Some(after(47)));
    let first = Life(vec![to_come(1, 48)]).rotate(new(2), Some(WEEK), first, NOW);
    assert_eq!(first, Err(NotRotated::EndsFirst));
}

#[test]
fn no_older_generation_is_left_without_an_end() {
    let life = vec![known(1, None, true), known(2, None, true), to_come(3, 9)];
    let mut used = life;
    used[2].used.last = Some(ago(1));
    let all = rotated(used, 4);
    let week = Some(after(168));
    assert_eq!(all, [(1, week), (2, week), (3, week), (4, None)]);
}

#[test]
fn without_an_overlap_nothing_old_is_left() {
    let life = Life(vec![known(1, Some(after(5)), true), known(2, None, true)]);
    let all = life.rotate(new(3), None, Limit::Inherited, NOW).unwrap();
    assert_eq!(numbers_and_ends(&all), [(3, None)]);
}

#[test]
fn what_ended_long_ago_is_forgotten() {
    let life = vec![known(1, Some(ago(24 * 31)), true), known(2, None, true)];
    assert_eq!(rotated(life, 3), [(2, Some(after(168))), (3, None)]);
}

#[test]
fn to_retire_the_last_that_is_known_to_work_locks_out() {
    let life = |is_used| {
        Life(vec![
            known(1, Some(after(5)), true),
            known(2, None, is_used),
        ])
    };
    assert!(!life(true).retire(&[1], NOW).locks_out);
    assert!(life(false).retire(&[1], NOW).locks_out);
    assert!(!life(false).retire(&[2], NOW).locks_out);
    assert!(life(true).retire(&[1, 2], NOW).locks_out);
    let unused = Life(vec![known(1, None, false)]);
    assert!(!unused.retire(&[1], NOW).locks_out);
}

#[test]
fn a_retired_generation_has_ended_and_one_that_has_not_begun_is_gone() {
    let mut life = Life(vec![known(1, None, true), known(2, None, true)]);
    let done = life.retire(&[1], NOW);
    let end = Timestamp(NOW.0 - 1);
    assert_eq!(
        numbers_and_ends(&done.generations),
        [(1, Some(end)), (2, None)]
    );
    assert_eq!(done.ended, [1]);
    life.0[0].generation.not_after = Some(end);
    assert_eq!(life.retire(&[1], NOW).ended, [0; 0]);
    life.0[1].generation.not_before = Some(after(1));
    let done = life.retire(&[2], NOW);
    assert_eq!(numbers_and_ends(&done.generations), [(1, Some(end))]);
}

#[test]
fn what_is_retired_by_a_clock_a_year_ahead_has_ended_by_the_right_one_too() {
    let year = 365 * 24;
    // Without an end; with one that is over by that clock; and never used.
    for (not_after, is_used) in [(None, true), (Some(after(9)), true), (None, false)] {
        let mut life = Life(vec![known(1, not_after, is_used), known(2, None, true)]);
        life.0[0].generation.made = Some(ago(3));
        let done = life.retire(&[1], after(year));
        let end = if is_used { ago(1) } else { ago(3) };
        assert_eq!(
            numbers_and_ends(&done.generations),
            [(1, Some(end)), (2, None)]
        );
        // Once is enough.
        life.0[0].generation = done.generations[0].clone();
        assert_eq!(life.retire(&[1], NOW).generations, done.generations);
    }
}

#[test]
fn to_retire_what_nobody_used_gives_the_one_before_its_own_end_back() {
    let life = |is_used| {
        let mut old = known(1, Some(after(500)), true);
        old.generation.overlap_until = Some(after(168));
        Life(vec![old, known(2, None, is_used)])
    };
    let done = life(false).retire(&[2], NOW);
    let ended = (2, Some(Timestamp(NOW.0 - 1)));
    let want = [(1, Some(after(500))), ended];
    assert_eq!(numbers_and_ends(&done.generations), want);
    assert_eq!(done.goes_on, Some(1));
    let left = done.generations.into_iter().map(|generation| Known {
        generation,
        used: GenerationUse::default(),
    });
    // It is the newest again.
    let state = Life(left.collect()).state(0, NOW);
    assert_eq!(state, State::Active(Some(after(500))));
    // What was used has replaced it.
    let done = life(true).retire(&[2], NOW);
    assert_eq!(numbers_and_ends(&done.generations)[0].1, Some(after(168)));
    assert_eq!(done.goes_on, None);
    // That the older one retires says that somebody used the newer.
    let mut lost = life(false);
    lost.0[0].used.retires = Some(after(9));
    assert_eq!(lost.retire(&[2], NOW).goes_on, None);
    assert_eq!(life(false).retire(&[1], NOW).goes_on, None);
}
