//! Which of a run's violations a subcommand is about.

use clap::Args;
use sider_sim_tests::{
    invariants::{ALL, Violation},
    words,
};

/// The violation that is chosen.
#[derive(Args)]
pub(crate) struct Choice {
    /// The invariant whose violation it is about; the one that is violated first, in time, by default.
    #[arg(long, value_name = "NAME")]
    pub(crate) invariant: Option<String>,
}

impl Choice {
    /// The chosen one of a run's violations, and what to tell people of the choice.
    pub(crate) fn of<'a>(&self, violations: &'a [Violation]) -> Result<(&'a Violation, String), String> {
        let Some(earliest) = violations.iter().min_by_key(|it| it.at) else {
            return Err("this schedule does not fail".into());
        };
        let fired = words::list(violations.iter().map(|it| it.invariant));
        let Some(name) = &self.invariant else {
            let others = match violations.len() {
                1 => String::new(),
                all => format!(", the earliest of {all} violations (--invariant chooses another: {fired})"),
            };
            return Ok((earliest, format!("It is about {earliest}{others}\n")));
        };
        match violations.iter().find(|it| it.invariant == name) {
            Some(chosen) => Ok((chosen, format!("It is about {chosen}\n"))),
            None if ALL.iter().any(|(known, _)| known == name) => {
                Err(format!("{name} is not violated; what is: {fired}"))
            }
            None => Err(format!("there is no invariant {name}; what is violated: {fired}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use sider_sim_tests::time::Time;

    use super::*;

    fn violations() -> [Violation; 2] {
        [
            Violation::new("durability", Time(9), "it is lost"),
            Violation::new("ttl", Time(3), "it expired"),
        ]
    }

    fn chosen(invariant: Option<&str>) -> Result<(&'static str, String), String> {
        let invariant = invariant.map(str::to_owned);
        let violations = violations();
        let (violation, told) = Choice { invariant }.of(&violations)?;
        Ok((violation.invariant, told))
    }

    #[test]
    fn the_earliest_is_chosen_and_said() {
        let (invariant, told) = chosen(None).expect("there are two");
        assert_eq!(invariant, "ttl");
        assert!(
            told.contains("it expired, the earliest of 2 violations"),
            "{told}"
        );
        assert!(told.contains("durability, ttl"), "{told}");
    }

    #[test]
    fn another_one_can_be_chosen_if_it_is_there() {
        assert_eq!(chosen(Some("durability")).map(|it| it.0), Ok("durability"));
        let refused = chosen(Some("watches")).expect_err("it holds");
        assert_eq!(refused, "watches is not violated; what is: durability, ttl");
        let refused = chosen(Some("wtches")).expect_err("there is none");
        assert_eq!(
            refused,
            "there is no invariant wtches; what is violated: durability, ttl"
        );
        let choice = Choice { invariant: None };
        assert!(choice.of(&[]).is_err());
    }
}
