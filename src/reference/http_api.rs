//! `docs/http-api.md`: every route, from the table that the router is built from.

use std::fmt::Write;

use crate::{
    http::{Access, PROBLEMS, Problem, ROUTES, Route},
    reference::{assert_current, head, row},
};

fn section(route: &Route) -> String {
    let Route { method, path, purpose, parameters, answers, access, .. } = route;
    let mut section = format!("### `{method} {path}`\n\n{purpose}\n\n");
    section += match access {
        Access::Open => "",
        Access::Read => "Requires a token if `http.read_token` is set.\n\n",
        Access::Respondents => {
            "Requires `http.bearer_token` if it is set; `http.read_token` will do.\n\n"
        }
        Access::Write => "Requires `http.bearer_token` if it is set.\n\n",
    };
    if !parameters.is_empty() {
        section += &head(&["parameter", "meaning"]);
        for (name, meaning) in *parameters {
            section += &row(&[&format!("`{name}`"), meaning]);
        }
        section += "\n";
    }
    section += &head(&["status", "answer"]);
    for (status, meaning) in *answers {
        write!(section, "{}", row(&[&status.to_string(), meaning])).unwrap();
    }
    section + "\n"
}

#[test]
fn every_problem_is_in_the_docs() {
    let mut table = head(&["status", "`type`", "`title`", "when"]);
    for problem in PROBLEMS {
        let Problem { status, title, meaning, is_everywhere, .. } = problem;
        let when = if *is_everywhere {
            meaning.to_string()
        } else {
            format!("{meaning} (where a route lists it)")
        };
        table += &row(&[&status.to_string(), &format!("`{}`", problem.uri()), title, &when]);
    }
    assert_current("http-api.md", "problems", &table);
}

#[test]
fn every_route_is_in_the_docs() {
    let sections: Vec<String> = ROUTES.iter().map(section).collect();
    assert_current("http-api.md", "routes", &sections.concat());
}
