//! A key's generations, by a clock that the tests set.

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
fn known(number: u32, not_after: Option<Timestamp>, is_used: bool) -> UsedGeneration {
    UsedGeneration {
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

fn rotated(life: Vec<UsedGeneration>, number: u32) -> Vec<(u32, Option<Timestamp>)> {
    let all = Generations(life).rotate(new(number), Some(WEEK), Limit::Inherited, false, NOW);
    numbers_and_ends(&all.unwrap())
}

fn states(generations: &Generations, now: Timestamp) -> Vec<State> {
    generations.states(now).map(|(_, state)| state).collect()
}

#[test]
fn states_follow_the_clock_and_what_was_brought_forward() {
    let mut generations = Generations(vec![known(1, Some(after(9)), true), known(2, None, true)]);
    let active = State::Active(None);
    let retiring = |hours| State::Retiring(after(hours));
    assert_eq!(states(&generations, NOW), [retiring(9), active]);
    generations.0[0].used.retires = Some(after(2));
    assert_eq!(states(&generations, NOW), [retiring(2), active]);
    assert_eq!(
        states(&generations, after(3)),
        [State::Expired(after(2)), active]
    );
    generations.0[1].generation.not_before = Some(after(1));
    assert_eq!(
        states(&generations, NOW),
        [retiring(2), State::NotYet(after(1))]
    );
    assert_eq!(states(&generations, after(1)), [retiring(2), active]);
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
fn a_second_rotation_drops_the_one_of_two_that_was_never_used() {
    let week = Some(after(168));
    let both = |previous: bool, current: bool| {
        let mut old = known(1, None, previous);
        old.generation.overlap_until = Some(after(5));
        vec![old, known(2, None, current)]
    };
    // Its overlap begins from here.
    assert_eq!(rotated(both(true, false), 3), [(1, week), (3, None)]);
    assert_eq!(rotated(both(false, true), 3), [(2, week), (3, None)]);
    // Where no use at all is known the older one is the safer.
    assert_eq!(rotated(both(false, false), 3), [(1, week), (3, None)]);
    // One that has ended makes room.
    let ended = vec![known(1, Some(ago(5)), true), known(2, None, true)];
    assert_eq!(rotated(ended, 3), [(2, week), (3, None)]);
    let ended = vec![known(1, None, true), known(2, Some(ago(5)), true)];
    let all = Generations(ended).rotate(new(3), Some(WEEK), Limit::Until(None), false, NOW);
    assert_eq!(numbers_and_ends(&all.unwrap()), [(1, week), (3, None)]);
}

#[test]
fn a_rotation_of_two_in_use_is_refused_or_drops_the_older_one() {
    let both = |current: bool| {
        let mut old = known(1, None, true);
        old.generation.overlap_until = Some(after(5));
        Generations(vec![old, known(2, None, current)])
    };
    let rotate = |generations: Generations, force| {
        generations.rotate(new(3), Some(WEEK), Limit::Inherited, force, NOW)
    };
    assert_eq!(rotate(both(true), false), Err(NotRotated::BothInUse));
    let forced = rotate(both(true), true).unwrap();
    let want = [(2, Some(after(168))), (3, None)];
    assert_eq!(numbers_and_ends(&forced), want);
    // The state was lost, and still knows that the first retires: the second was used.
    let mut lost = both(false);
    lost.0[0].used = GenerationUse {
        retires: Some(after(4)),
        ..GenerationUse::default()
    };
    assert_eq!(rotate(lost, false), Err(NotRotated::BothInUse));
    // For a key that has leaked nobody is asked.
    let now = both(true).rotate(new(3), None, Limit::Inherited, false, NOW);
    assert_eq!(numbers_and_ends(&now.unwrap()), [(3, None)]);
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
    let free = Generations(limited()).rotate(new(2), Some(WEEK), Limit::Until(None), false, NOW);
    assert_eq!(
        numbers_and_ends(&free.unwrap()),
        [(1, Some(after(50))), (2, None)]
    );
    let ended = Generations(vec![known(1, Some(ago(1)), true)]);
    assert_eq!(
        ended.rotate(new(2), Some(WEEK), Limit::Inherited, false, NOW),
        Err(NotRotated::Ended)
    );
}

#[test]
fn no_rotation_moves_a_generations_own_end() {
    let mut life = vec![known(1, Some(after(24)), true)];
    for number in 2..5 {
        let all = Generations(life).rotate(new(number), Some(WEEK), Limit::Until(None), false, NOW);
        let all = all.unwrap();
        let want = [(1, Some(after(24))), (number, None)];
        assert_eq!(numbers_and_ends(&all), want);
        let mut again = all.into_iter().map(|generation| UsedGeneration {
            used: GenerationUse::default(),
            generation,
        });
        life = vec![again.next().unwrap(), again.next().unwrap()];
        life[0].used.last = Some(NOW);
    }
}

/// A generation that begins in so many hours.
fn to_come(number: u32, hours: u64) -> UsedGeneration {
    let mut known = known(number, None, false);
    known.generation.not_before = Some(after(hours));
    known
}

#[test]
fn a_key_that_is_not_valid_yet_opens_no_sooner_by_a_rotation() {
    let begins =
        |all: &[Generation]| -> Vec<_> { all.iter().map(|g| (g.number, g.not_before)).collect() };
    let rotate = |life: Vec<UsedGeneration>, number| {
        let all = Generations(life).rotate(new(number), Some(WEEK), Limit::Inherited, false, NOW);
        all.unwrap()
    };
    let all = rotate(vec![to_come(1, 48)], 2);
    assert_eq!(begins(&all), [(1, Some(after(48))), (2, Some(after(48)))]);
    // The overlap begins when the key does.
    let week = Some(after(48 + 168));
    assert_eq!(numbers_and_ends(&all), [(1, week), (2, None)]);
    let known = |generation| UsedGeneration {
        generation,
        used: GenerationUse::default(),
    };
    let second = rotate(all.into_iter().map(known).collect(), 3);
    assert_eq!(numbers_and_ends(&second), [(1, week), (3, None)]);
    let leaked =
        Generations(vec![to_come(1, 48)]).rotate(new(2), None, Limit::Inherited, false, NOW);
    assert_eq!(begins(&leaked.unwrap()), [(2, Some(after(48)))]);
    let first = Limit::Until(Some(after(47)));
    let first = Generations(vec![to_come(1, 48)]).rotate(new(2), Some(WEEK), first, false, NOW);
    assert_eq!(first, Err(NotRotated::EndsFirst));
}

#[test]
fn without_an_overlap_nothing_old_is_left() {
    let life = Generations(vec![known(1, Some(after(5)), true), known(2, None, true)]);
    let all = life
        .rotate(new(3), None, Limit::Inherited, false, NOW)
        .unwrap();
    assert_eq!(numbers_and_ends(&all), [(3, None)]);
}

#[test]
fn to_retire_the_last_that_is_known_to_work_locks_out() {
    let life = |is_used| {
        Generations(vec![
            known(1, Some(after(5)), true),
            known(2, None, is_used),
        ])
    };
    assert!(!life(true).retire(&[1], NOW).locks_out);
    assert!(life(false).retire(&[1], NOW).locks_out);
    assert!(!life(false).retire(&[2], NOW).locks_out);
    assert!(life(true).retire(&[1, 2], NOW).locks_out);
    let unused = Generations(vec![known(1, None, false)]);
    assert!(!unused.retire(&[1], NOW).locks_out);
}

#[test]
fn a_retired_generation_has_ended_and_one_that_has_not_begun_is_gone() {
    let mut life = Generations(vec![known(1, None, true), known(2, None, true)]);
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
        let mut life = Generations(vec![known(1, not_after, is_used), known(2, None, true)]);
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
        Generations(vec![old, known(2, None, is_used)])
    };
    let done = life(false).retire(&[2], NOW);
    let ended = (2, Some(Timestamp(NOW.0 - 1)));
    let want = [(1, Some(after(500))), ended];
    assert_eq!(numbers_and_ends(&done.generations), want);
    assert_eq!(done.goes_on, Some(1));
    let left = done
        .generations
        .into_iter()
        .map(|generation| UsedGeneration {
            generation,
            used: GenerationUse::default(),
        });
    // It is the newest again.
    let first = states(&Generations(left.collect()), NOW)[0];
    assert_eq!(first, State::Active(Some(after(500))));
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
