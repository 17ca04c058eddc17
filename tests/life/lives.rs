//! Lives lived, and those that break a promise shrunk to the fewest steps.

use crate::destination::Sort;
use crate::draw;
use crate::rng::Rng;
use crate::step::{Life, Programs, Step};
use crate::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The steps of one life at most.
const STEPS: u64 = 40;

/// A life that breaks a promise.
pub struct Broken {
    pub life: Life,
    pub why: String,
}

/// Lives the life of a seed.
pub fn live(programs: Programs, seed: u64) -> Result<(), Broken> {
    let mut rng = Rng::new(seed);
    let destinations = match programs {
        Programs::Library | Programs::Encrypted => draw::destinations(&mut rng),
        Programs::Real => vec![Sort::Directory; 1 + rng.below(2) as usize],
    };
    let mut life = Life { programs, destinations, steps: Vec::new() };
    let count = 8 + rng.below(STEPS - 8);
    let outcome = guarded(|| {
        let mut world = World::new(&life);
        let mut plot = draw::plot(&mut rng, &life.destinations).into_iter();
        for _ in 0..count {
            let planned = if rng.percent(60) { plot.next() } else { None };
            let step = planned.unwrap_or_else(|| draw::step(&mut rng, &world));
            life.steps.push(step);
            world.apply(&step)?;
        }
        world.settle()
    });
    outcome.map_err(|why| Broken { life, why })
}

/// Lives a life again.
pub fn replay(life: &Life) -> Result<(), String> {
    guarded(|| {
        let mut world = World::new(life);
        life.steps.iter().try_for_each(|step| world.apply(step))?;
        world.settle()
    })
}

/// A panic of a program is a violation, too.
fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        Err(format!("panic: {}", said.unwrap_or_default()))
    })
}

/// What a violation is of, without the names and numbers in it.
pub fn kind(why: &str) -> String {
    // The life's own folder has another name each time.
    let parts = why.split(why.find("/dev/shm").map_or("\u{0}", |_| "wal-archive-life."));
    let plain: String = parts.map(|part| part.get(6..).unwrap_or(part)).collect();
    let plain: String = plain.chars().filter(|c| !c.is_ascii_digit() && !c.is_ascii_uppercase()).collect();
    plain.chars().take(60).collect()
}

/// Leaves out every step without which the same promise is still broken.
pub fn shrink(broken: Broken) -> Broken {
    let kind_of = kind(&broken.why);
    let mut best = broken;
    let mut size = best.life.steps.len().max(1);
    while size > 0 {
        let mut at = 0;
        while at < best.life.steps.len() {
            let mut steps: Vec<Step> = best.life.steps.clone();
            steps.drain(at..(at + size).min(best.life.steps.len()));
            let life = Life { steps, ..best.life.clone() };
            match replay(&life) {
                Err(why) if kind(&why) == kind_of => best = Broken { life, why },
                _ => at += size,
            }
        }
        size /= 2;
    }
    for only in 0..best.life.destinations.len() {
        let life = Life { destinations: vec![best.life.destinations[only]], ..best.life.clone() };
        if best.life.destinations.len() > 1
            && let Err(why) = replay(&life)
            && kind(&why) == kind_of
        {
            best = Broken { life, why };
            break;
        }
    }
    best
}
